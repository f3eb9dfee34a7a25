"""The quantized base model with LoRA on it: 4-bit loading, targets found in the model, counts.

It leaves files and downloads to base_model_files, the training itself to fine_tuning_model.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from processes import is_sharded
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from common.base_model_files import BaseModel, BaseModelError
from common.compute_device import Device, make_quantization_config
from common.script import ScriptError


@dataclass(frozen=True)
class ParameterCount:
    """Parameters of base + adapter, 4-bit weights counted one by one."""

    trainable: int
    total: int

    @property
    def trainable_percent(self) -> float:
        """The trainable share of base + adapter, in percent."""
        return 100 * self.trainable / self.total


def read_model_config(folder: Path) -> PreTrainedConfig:
    """Read the config of the base in `folder`; raise BaseModelError for a kind of model the library does not know."""
    try:
        config: PreTrainedConfig = AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except (ValueError, KeyError, TypeError, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise BaseModelError(
            f"{folder / 'config.json'}: not a model this transformers can load ({reason}); choose another base model"
        ) from None
    return config


def load_quantized_base(folder: Path, device: Device, attn_implementation: str | None = None) -> PreTrainedModel:
    """Load the checked base model from `folder`, in 4 bits where bitsandbytes runs, whole on the one device.

    The embeddings, the head and the norms stay in `device.dtype`: upcasting them to fp32 costs 1 GiB on the default base
    and doubles the activations, and norms compute in fp32 inside anyway.
    """
    arguments: dict[str, Any] = {"dtype": device.dtype, "attn_implementation": attn_implementation}
    # Sharding moves float tensors only: then the 4-bit values travel in the dtype of the rest.
    stored_as = device.dtype if is_sharded() else torch.uint8
    arguments["quantization_config"] = make_quantization_config(device, stored_as)
    if not is_sharded():  # FSDP places the parts itself
        arguments["device_map"] = {"": device.name}
    with warnings.catch_warnings():
        # bitsandbytes 0.50 still uses torch.jit at import.
        warnings.filterwarnings("ignore", category=DeprecationWarning, module="torch")
        model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
            folder, use_safetensors=True, trust_remote_code=False, local_files_only=True, **arguments
        )
    model.config.use_cache = False  # with a cache, packed conversations would see each other
    keep_layout_for_training(model)
    return model


def keep_layout_for_training(model: torch.nn.Module) -> None:
    """Forbid bitsandbytes to repack the 4-bit layers of `model` for inference.

    Where the processor has avx512_bf16, bitsandbytes 0.50 repacks a layer at its first forward pass in eval mode and
    leaves it so. The kernel for that layout has no backward pass: gradients are wrong without an error.
    """
    layer: Any
    for layer in model.modules():
        if hasattr(layer, "support_avx512bf16_for_cpu"):
            layer.support_avx512bf16_for_cpu = False


def find_lora_targets(model: PreTrainedModel) -> list[str]:
    """Return the names of the linear layers inside the model's repeated blocks, and of its head, sorted.

    For Llama, Mistral, Qwen and Gemma these are the seven projections and `lm_head`, for GPT-2 `c_attn`, `c_fc`,
    `c_proj` and `lm_head`.
    """
    head = model.get_output_embeddings()
    targets: set[str] = set()
    for path, module in model.named_modules():
        if not isinstance(module, (torch.nn.Linear, Conv1D)):
            continue
        parts = path.split(".")
        if module is head or any(part.isdigit() for part in parts[:-1]):
            targets.add(parts[-1])
    if not targets:
        raise ScriptError(
            f"{model.config.model_type}: has no linear layers LoRA could adapt; choose another base model"
        )
    return sorted(targets)


def add_lora(
    model: PreTrainedModel,
    rank: int,
    alpha: int,
    dropout: float,
    adapter_dtype: torch.dtype = torch.float32,
    base: BaseModel | None = None,
) -> PeftModel:
    """Freeze `model` and put LoRA on its targets; seed before calling.

    `base` is what the adapter's config names as its base model: a hub id with its commit, or a folder's bare name.
    """
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0  # GPT-2's own; `dropout` says whether there is any
    settings = LoraConfig(
        r=rank,
        lora_alpha=alpha,
        lora_dropout=dropout,
        target_modules=find_lora_targets(model),
        fan_in_fan_out=any(isinstance(module, Conv1D) for module in model.modules()),
        task_type="CAUSAL_LM",
    )
    with warnings.catch_warnings():
        # peft asks a property that transformers 5 renamed; and a tied head is adapted on purpose, beside its base.
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing", category=FutureWarning)
        warnings.filterwarnings("ignore", message=".*tie_word_embeddings=True")
        warnings.filterwarnings("ignore", message="fan_in_fan_out is set to")  # GPT-2 mixes both kinds; peft decides
        is_meta = model.device.type == "meta"
        adapted = get_peft_model(model, settings, low_cpu_mem_usage=is_meta)
    for parameter in adapted.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.to(adapter_dtype)
    if base is not None:
        settings.base_model_name_or_path = base.name if base.revision else (base.folder or Path(base.name)).name
        settings.revision = base.revision
    return adapted


def enable_gradient_checkpointing(model: PeftModel) -> None:
    """Let `model` keep the input of each layer only, and compute the rest again in the backward pass.

    A third of the time more, for a fraction of the memory; the gradients are the same to the last bit.
    """
    # After LoRA is in place: before, peft would switch it on once more by a deprecated name.
    base: Any = model.get_base_model()
    base.activation_checkpointing_enable({"use_reentrant": False})


def count_parameters(model: PeftModel) -> ParameterCount:
    """Count the trainable and all parameters of base + adapter."""
    trainable, total = model.get_nb_trainable_parameters()
    return ParameterCount(trainable, total)
