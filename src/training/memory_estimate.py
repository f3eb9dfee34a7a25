"""The memory that training and a chat need, from the base's config alone.

No formula: a model of the real shape takes one training step on fake tensors, which have sizes but no contents, and the
storages alive at one time are summed. That takes seconds and needs neither weights nor a GPU.
Time, disk and the comparison with the machine are left to `feasibility`.
"""

from __future__ import annotations

import math
import weakref
from dataclasses import dataclass
from typing import Any

import torch
from head_loss import compute_loss_in_blocks
from peft.helpers import disable_input_dtype_casting
from qlora_model import ParameterCount, add_lora, count_parameters, enable_gradient_checkpointing
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter
from transformers import (
    AttentionInterface,
    AttentionMaskInterface,
    AutoModelForCausalLM,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.pytorch_utils import Conv1D

from common.compute_device import Device
from common.outside_files import loading

GIB = 2**30

# NF4 with double quantization: half a byte per weight, one byte of scale per 64 weights, four bytes per 256 scales.
NF4_BYTES = 1 / 2 + 1 / 64 + 4 / (64 * 256)
# Per trained parameter. 8-bit Adam: two states of one byte each, and a scale of four bytes per 256 values.
OPTIMIZER_BYTES = {"cuda": 2 * (1 + 4 / 256), "mps": 8, "cpu": 8}
# Before the first tensor: CUDA, cuBLAS and the libraries; on a CPU, Python with torch and transformers.
CUDA_CONTEXT_BYTES = int(0.6 * GIB)
CPU_LIBRARIES_BYTES = int(0.8 * GIB)

MASKLESS_ATTENTION = "sdpa_without_mask"

SUPERVISED_SHARE = 1 / 3  # of the tokens, while there is no data to count


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes on the device at the peak, by purpose."""

    weights_4bit: int
    weights_other: int  # embeddings, head, norms; without quantization, all weights
    adapter: int
    optimizer: int
    activations: int  # with their gradients; in a chat, with its cache
    unpacking: int  # the largest layer, dequantized
    libraries: int

    @property
    def total(self) -> int:
        """The sum of all parts."""
        return sum(vars(self).values())


@dataclass(frozen=True)
class Load:
    """What decides the memory of one training step besides the model."""

    row_tokens: int = 2048
    supervised_share: float = SUPERVISED_SHARE  # of the tokens
    rank: int = 32
    alpha: int = 64
    dropout: float = 0.0
    adapter_dtype: torch.dtype = torch.float32
    gradient_checkpointing: bool = True
    chat_tokens: int = 2048  # the context of a chat


def shown_gib(num_bytes: int) -> str:
    """Return the size as messages show it, rounded up."""
    return f"{math.ceil(100 * num_bytes / GIB) / 100:.2f} GiB"


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
        try:
            return _build(config, dtype, MASKLESS_ATTENTION)
        except (
            ValueError
        ):  # a family with a soft cap (Gemma 2): plain attention, with its T x T matrices, in a real run too
            return _build(config, dtype, "eager")
    raise AssertionError("loading lets no error through")


def _build(config: PreTrainedConfig, dtype: torch.dtype, attention: str) -> PreTrainedModel:
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation=attention)
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


def estimate_memory(
    config: PreTrainedConfig, device: Device, load: Load
) -> tuple[ParameterCount, MemoryEstimate, MemoryEstimate]:
    """Return the number of parameters, the memory of training, and the memory of a chat."""
    model = build_empty_model(config, device.dtype)
    num_4bit, largest = _count_quantizable(model) if device.is_quantized else (0, 0)
    num_other = sum(parameter.numel() for parameter in model.parameters()) - num_4bit
    compute_loss_in_blocks(model)
    adapted = add_lora(model, load.rank, load.alpha, load.dropout, load.adapter_dtype)
    if load.gradient_checkpointing:
        enable_gradient_checkpointing(adapted)
    count = count_parameters(adapted)
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
    shared = {
        "weights_4bit": math.ceil(num_4bit * NF4_BYTES),
        "weights_other": num_other * device.dtype.itemsize,
        "adapter": count.trainable * load.adapter_dtype.itemsize,
        "unpacking": largest * device.dtype.itemsize,
        "libraries": CUDA_CONTEXT_BYTES if device.kind == "cuda" else CPU_LIBRARIES_BYTES,
    }
    optimizer = math.ceil(count.trainable * OPTIMIZER_BYTES[device.kind])
    training = MemoryEstimate(**shared, optimizer=optimizer, activations=training_peak)
    return count, training, MemoryEstimate(**shared, optimizer=0, activations=chat_peak)


def _count_quantizable(model: PreTrainedModel) -> tuple[int, int]:
    """Return how many weights bitsandbytes quantizes (all linear layers except the head), and how many the largest has."""
    head = model.get_output_embeddings()
    sizes = [
        module.weight.numel()
        for module in model.modules()
        if isinstance(module, (torch.nn.Linear, Conv1D)) and module is not head
    ]
    return sum(sizes), max(sizes)
