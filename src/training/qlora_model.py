"""The quantized base model with LoRA: loading in 4 bits, finding the target modules, counting parameters.

Files and downloads are left to `base_model_files`.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch
from model_shape import ParameterCount
from peft import LoraConfig, PeftModel, get_peft_model
from peft.utils.transformers_weight_conversion import convert_peft_config_for_transformers
from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from common.base_model_files import BaseModel
from common.compute_device import Device, choose_4bit_layout, load_causal_model, make_quantization_config
from common.outside_files import loading
from common.script import ScriptError, printable

# Layers whose weights the kernels of these families read past the layer, and with it past LoRA; peft 0.21 refuses them.
MAMBA_TYPES = ("falcon_h1", "falcon_mamba", "mamba", "mamba2", "nemotron_h")
UNFIT_LAYERS = ("conv1d", "out_proj")
ROUTER = "router"  # chooses the experts; to PhiMoE and Llama 4 a linear layer that returns more than a product


def read_model_config(folder: Path) -> PreTrainedConfig:
    """Read the config of the base in `folder`; raise ScriptError if the library does not know this kind of model."""
    with loading(str(folder / "config.json"), "a model of this kind", "choose another base model"):
        config: PreTrainedConfig = AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    return config


def load_quantized_base(folder: Path, device: Device, attn_implementation: str | None = None) -> PreTrainedModel:
    """Load the checked base model in `folder` onto `device`, in 4 bits if the device says so.

    Embeddings, head and norms stay in `device.dtype`: fp32 would cost 1 GiB on the default base and double the
    activations, and norms compute in fp32 inside anyway.
    """
    with loading(str(folder), "the base model", "download it again, or choose another one"), warnings.catch_warnings():
        # bitsandbytes 0.50 still uses torch.jit at import.
        warnings.filterwarnings("ignore", category=DeprecationWarning, module="torch")
        model: PreTrainedModel = load_causal_model(
            folder,
            local_files_only=True,
            dtype=device.dtype,
            attn_implementation=attn_implementation,
            quantization_config=make_quantization_config(device),
            device_map={"": device.name},
        )
    model.config.use_cache = False  # with a cache, packed conversations would see each other
    # How evenly the experts are used is no part of the loss: what chooses them is not trained.
    model.config.get_text_config().output_router_logits = False
    choose_4bit_layout(model, is_training=True)
    return model


def find_lora_targets(model: PreTrainedModel) -> list[str]:
    """Return the sorted names of the linear layers in the repeated blocks of the text model, and of its head.

    For Llama, Mistral, Qwen and Gemma these are the seven projections and `lm_head`, for GPT-2 `c_attn`, `c_fc`,
    `c_proj` and `lm_head`. In a model that also reads pictures, layers of its other parts may have the same names: there
    each layer of the text model is named by its path.
    """
    head = model.get_output_embeddings()
    unfit = (*UNFIT_LAYERS, ROUTER) if model.config.model_type in MAMBA_TYPES else (ROUTER,)
    is_text_only = model.config.get_text_config() is model.config
    text_modules = set((model if is_text_only else model.get_decoder()).modules())
    targets: set[str] = set()
    for path, module in model.named_modules():
        name = path.split(".")[-1]
        if not isinstance(module, (torch.nn.Linear, Conv1D)) or name in unfit:
            continue
        if module is head:
            targets.add(name)
        elif module in text_modules and any(part.isdigit() for part in path.split(".")[:-1]):
            # A number alone (CTRL) would also be the name of a whole block.
            targets.add(name if is_text_only and not name.isdigit() else path)
    if not targets:
        raise ScriptError(
            f"{printable(model.config.model_type)}: has no linear layers for LoRA; choose another base model"
        )
    return sorted(_without_experts(model, targets))


def _without_experts(model: PreTrainedModel, targets: set[str]) -> set[str]:
    """Return the targets that peft takes for layers.

    Where the library keeps all experts of a layer in one tensor, peft 0.21 takes `gate_proj` for the experts, too, and
    trains them as parameters, with another rank: then neither they nor a shared expert get LoRA.
    """
    settings = LoraConfig(target_modules=sorted(targets))
    convert_peft_config_for_transformers(settings, model, None)
    return set(settings.target_modules or ())


def add_lora(
    model: PreTrainedModel,
    rank: int,
    alpha: int,
    dropout: float,
    adapter_dtype: torch.dtype = torch.float32,
    base: BaseModel | None = None,
) -> PeftModel:
    """Freeze `model` and add LoRA to its target modules; seed before calling.

    `base` is named in the adapter's config: a hub id with its commit, or a folder by its whole path, so that plain peft finds
    it from anywhere.
    """
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    _switch_off_dropout(model)
    settings = LoraConfig(
        r=rank,
        lora_alpha=alpha,
        lora_dropout=dropout,
        target_modules=find_lora_targets(model),
        fan_in_fan_out=any(isinstance(module, Conv1D) for module in model.modules()),
        task_type="CAUSAL_LM",
    )
    with warnings.catch_warnings():
        # peft reads a property that transformers 5 renamed; and LoRA on a tied head is intended.
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing", category=FutureWarning)
        warnings.filterwarnings("ignore", message=".*tie_word_embeddings=True")
        warnings.filterwarnings(
            "ignore", message="fan_in_fan_out is set to"
        )  # GPT-2 has layers of both kinds; peft corrects it per layer
        is_meta = model.device.type == "meta"
        adapted = get_peft_model(model, settings, low_cpu_mem_usage=is_meta)
    for parameter in adapted.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.to(adapter_dtype)
    if base is not None:
        folder = base.folder if base.revision is None else None
        settings.base_model_name_or_path = base.name if folder is None else str(folder.resolve())
        settings.revision = base.revision
    return adapted


def _switch_off_dropout(model: torch.nn.Module) -> None:
    """Switch off the base's own dropout, so that only that of LoRA decides.

    GPT-2 has layers for it; OPT and others keep numbers such as `attention_dropout` and `layerdrop` in their modules.
    """
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        for name, value in vars(module).items():
            if "drop" in name and isinstance(value, float):
                setattr(module, name, 0.0)


def enable_gradient_checkpointing(model: PeftModel) -> None:
    """Turn gradient checkpointing on: about a third more time, a fraction of the memory, the same gradients bit by bit.

    A family that has none (the first GPT) keeps all activations.
    """
    # After LoRA was added: otherwise peft turns it on again by a deprecated name.
    base: Any = model.get_base_model()
    if base.supports_gradient_checkpointing:
        base.activation_checkpointing_enable({"use_reentrant": False})


def count_parameters(model: PeftModel) -> ParameterCount:
    """Count the trainable and all parameters of base and adapter."""
    trainable, total = model.get_nb_trainable_parameters()
    return ParameterCount(trainable, total)
