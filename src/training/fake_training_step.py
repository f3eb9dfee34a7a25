"""One training step on fake tensors, which have sizes but no contents: for families that `memory_estimate` cannot count.

A model of the real shape takes the step, and the storages alive at one time are summed. That takes seconds and needs
neither weights nor a GPU, but the libraries of models and adapters.
"""

from __future__ import annotations

import weakref
from contextlib import suppress
from typing import Any

import torch
from head_loss import compute_loss_in_blocks
from model_shape import Load, Weights
from peft.helpers import disable_input_dtype_casting
from qlora_model import add_lora, enable_gradient_checkpointing, find_lora_targets
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter
from transformers import (
    AttentionInterface,
    AttentionMaskInterface,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.integrations.moe import ExpertsInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.pytorch_utils import Conv1D

from common.compute_device import Device, find_model_class
from common.outside_files import loading

MASKLESS_ATTENTION = "sdpa_without_mask"
ONE_EXPERT = "one_expert"


class StorageMeter(TorchDispatchMode):
    """Count the bytes of the storages created inside the block, and their peak."""

    def __init__(self) -> None:
        """Start at zero: earlier storages do not count."""
        super().__init__()
        self.current: int = 0
        self.peak: int = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operation and record the storages of its results."""
        result = func(*args, **(kwargs or {}))
        given = {_storage_key(tensor) for tensor in tree_iter((args, kwargs)) if isinstance(tensor, torch.Tensor)}
        for tensor in tree_iter(result):
            if isinstance(tensor, torch.Tensor) and _storage_key(tensor) not in given:
                self._count(tensor.untyped_storage())
        return result

    def _count(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key in self._known:
            return
        self._known.add(key)
        num_bytes = storage.nbytes()
        self.current += num_bytes
        self.peak = max(self.peak, self.current)
        weakref.finalize(storage, self._release, key, num_bytes)

    def _release(self, key: int, num_bytes: int) -> None:
        self._known.discard(key)
        self.current -= num_bytes


def _storage_key(tensor: torch.Tensor) -> int:
    key: int = tensor.untyped_storage()._cdata
    return key


def build_empty_model(config: PreTrainedConfig, dtype: torch.dtype) -> PreTrainedModel:
    """Build a model of this shape without memory for its weights (on torch's meta device)."""
    # Without the T x T mask, which the library would build for fake tensors but not in a real run.
    AttentionInterface.register(MASKLESS_ATTENTION, sdpa_attention_forward)
    AttentionMaskInterface.register(MASKLESS_ATTENTION, lambda *_args, **_kwargs: None)
    with loading(str(config.model_type), "a model of this shape", "choose another base model"), torch.device("meta"):
        for attention in (MASKLESS_ATTENTION, "sdpa"):
            with suppress(ValueError, KeyError):  # Falcon chooses its layers by the name
                return _build(config, dtype, attention)
        # A soft cap (Gemma 2): plain attention, with its T x T matrices, in a real run, too.
        return _build(config, dtype, "eager")
    raise AssertionError("loading lets no error through")


def read_one_expert(
    experts: Any, hidden_states: torch.Tensor, top_k_index: torch.Tensor, top_k_weights: torch.Tensor
) -> torch.Tensor:
    """Compute as many products as the chosen experts of all tokens do, all with the first expert's weights.

    Which tokens go to which expert is not known for fake tensors, and the library's grouped product takes them in bf16 only.
    """

    def multiply(rows: torch.Tensor, name: str) -> torch.Tensor:
        weight: torch.Tensor = getattr(experts, name)[0]
        product = rows.to(weight.dtype) @ (weight if experts.is_transposed else weight.T)
        if experts.has_bias:
            product = product + getattr(experts, f"{name}_bias")[0]
        return product

    num_tokens, num_chosen = top_k_index.shape
    rows = hidden_states.repeat_interleave(num_chosen, dim=0)
    if experts.has_gate:
        inner = experts._apply_gate(multiply(rows, "gate_up_proj"))
    else:
        inner = experts.act_fn(multiply(rows, "up_proj"))
    outputs = multiply(inner, "down_proj") * top_k_weights.reshape(-1, 1)
    summed: torch.Tensor = outputs.view(num_tokens, num_chosen, -1).sum(dim=1)
    return summed.to(hidden_states.dtype)


def _build(config: PreTrainedConfig, dtype: torch.dtype, attention: str) -> PreTrainedModel:
    model: PreTrainedModel = find_model_class(config).from_config(config, dtype=dtype, attn_implementation=attention)
    ExpertsInterface.register(ONE_EXPERT, read_one_expert)
    module: Any
    for module in model.modules():
        if hasattr(module, "_is_expert_parallel"):  # of all experts that the library can compute in several ways
            module.config._experts_implementation = ONE_EXPERT
    return model


def make_fake(model: torch.nn.Module) -> None:
    """Replace the meta tensors of `model` by fake CPU tensors; call it inside a FakeTensorMode.

    Kernels are chosen by device: on meta tensors, attention would build a T x T matrix.
    """
    fakes: dict[int, torch.Tensor] = {}  # tied weights stay one
    for module in model.modules():
        for tensors in (module._parameters, module._buffers):
            for name, tensor in tensors.items():
                if tensor is None:
                    continue
                if id(tensor) not in fakes:
                    fake = torch.empty(tensor.shape, dtype=tensor.dtype)
                    is_parameter = isinstance(tensor, torch.nn.Parameter)
                    fakes[id(tensor)] = torch.nn.Parameter(fake, tensor.requires_grad) if is_parameter else fake
                tensors[name] = fakes[id(tensor)]  # type: ignore[assignment]


def measure_training_step(model: Any, load: Load) -> int:
    """Return the peak bytes of activations and gradients in one training step of `model`.

    Plain attention over the whole row stands in for attention inside segments: flash kernels keep the same for both.
    """
    num_supervised = max(1, round(load.supervised_share * load.row_tokens))
    targets = torch.zeros(num_supervised, dtype=torch.long)
    row = {"input_ids": torch.zeros(1, load.row_tokens, dtype=torch.long), "use_cache": False}
    row |= {"logits_to_keep": torch.arange(num_supervised), "labels": targets, "shift_labels": targets}
    return measure_step(model, row, num_items_in_batch=num_supervised)


def measure_step(model: Any, batch: dict[str, Any], **arguments: Any) -> int:
    """Return the peak bytes of activations and gradients in one training step on `batch`."""
    model.train()
    with StorageMeter() as meter:
        model(**batch, **arguments).loss.backward()
    return int(meter.peak)


def measure_chat_prompt(model: Any, context_tokens: int) -> int:
    """Return the peak bytes of activations and cache while a prompt of this length is read."""
    model.eval()
    with torch.no_grad(), StorageMeter() as meter:
        model(input_ids=torch.zeros(1, context_tokens, dtype=torch.long), use_cache=True, logits_to_keep=1)
    return int(meter.peak)


def measure_memory(config: PreTrainedConfig, device: Device, load: Load) -> tuple[int, int]:
    """Return the peak bytes of activations in a training step (with gradients), and in a chat (with its cache)."""
    model = build_empty_model(config, device.dtype)
    compute_loss_in_blocks(model)
    adapted = add_lora(model, load.rank, load.alpha, load.dropout, load.adapter_dtype)
    if load.gradient_checkpointing:
        enable_gradient_checkpointing(adapted)
    # Half precision is trained under autocast. Real 4-bit layers do not cast their input to the adapter's fp32 there;
    # the plain layers that stand in for them would.
    is_half = device.dtype != torch.float32
    with (
        loading(str(config.model_type), "a model of this shape", "choose another base model"),
        FakeTensorMode(),
        torch.autocast("cpu", torch.bfloat16, enabled=is_half),
        disable_input_dtype_casting(adapted, active=is_half and device.is_quantized),
    ):
        make_fake(adapted)
        training_peak = measure_training_step(adapted, load)
        adapted.zero_grad(set_to_none=True)
        chat_peak = measure_chat_prompt(adapted, load.chat_tokens)
    return training_peak, chat_peak


def count_weights(config: PreTrainedConfig) -> Weights:
    """Count the weights of a base of this shape, by building it without memory."""
    model = build_empty_model(config, torch.bfloat16)
    head = model.get_output_embeddings()
    targets = set(find_lora_targets(model))
    # bitsandbytes quantizes all linear layers except the head.
    linear = {path: module for path, module in model.named_modules() if isinstance(module, (torch.nn.Linear, Conv1D))}
    body = {path: module for path, module in linear.items() if module is not head}
    adapted = [module for path, module in linear.items() if {path, path.split(".")[-1]} & targets]
    return Weights(
        total=sum(parameter.numel() for parameter in model.parameters()),
        linear=sum(module.weight.numel() for module in body.values()),
        largest=max(module.weight.numel() for module in body.values()),
        multiplied=sum(module.weight.numel() for module in adapted if module is not head),
        head=head.weight.numel(),
        lora_per_rank=sum(sum(module.weight.shape) for module in adapted),
        head_widths=sum(head.weight.shape),
    )
