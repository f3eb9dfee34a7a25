"""Device, number type and quantization: one rule for training and one for the chat, from what the machine has.

And loading a base by them. Adapters are left to `qlora_model` and `trained_model`.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from common.base_model_files import list_weight_files, read_json_object
from common.script import ScriptError, counted, printable, reason_of

# Of the QLoRA paper: 4-bit normal float, its scales quantized again (0.516 bytes per weight).
NF4 = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True}

# Without these instructions, reading a prompt in bfloat16 took five times as long as in float32.
BF16_PROCESSOR_FLAGS = {"avx512_bf16", "amx_bf16"}
REPACKED_ROWS, REPACKED_COLUMNS = 32, 64  # a repacked layer has a multiple of them
SHARE_OF_MEMORY = 0.8  # for the weights; the rest is for the cache, the system and other programs
# Where the driver of an NVIDIA card shows itself: on Linux, and in WSL.
NVIDIA_DRIVER_PATHS = ("/proc/driver/nvidia/version", "/usr/lib/wsl/lib/libcuda.so.1")
SLOW_ON_CPU_BYTES = 4e9  # a base of this size (2 billion parameters in 16 bits) takes seconds per word


@dataclass(frozen=True)
class Device:
    """Where a model computes, and the number type of what is not quantized."""

    name: str  # as torch calls it: "cuda:0", "cuda", "mps", "cpu"
    dtype: torch.dtype
    is_quantized: bool  # the base's linear layers are in 4 bits (NF4)

    @property
    def kind(self) -> str:
        """The device without its number."""
        return self.name.split(":")[0]

    @property
    def dtype_name(self) -> str:
        """The number type as messages show it: `float32`."""
        return str(self.dtype).removeprefix("torch.")

    def __str__(self) -> str:
        """Return it as messages show it."""
        return f"{self.name}, {'4 bits, ' if self.is_quantized else ''}{self.dtype_name}"


@dataclass(frozen=True)
class Machine:
    """What a computer has."""

    has_cuda: bool
    has_cuda_bf16: bool
    has_mps: bool
    has_processor_bf16: bool
    memory_bytes: float


def look_at_machine() -> Machine:
    """Return what this computer has and this torch can use."""
    return Machine(
        has_cuda=can_use_cuda(),
        has_cuda_bf16=_has_cuda_bf16(),
        has_mps=torch.backends.mps.is_available(),
        has_processor_bf16=bool(BF16_PROCESSOR_FLAGS & _processor_flags()),
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
    )


def choose_training_device(wanted: str = "auto") -> Device:
    """Return the device to train on: the GPU of this process, a Mac's GPU, or the processor (always, if `wanted` is "cpu")."""
    if wanted == "auto" and can_use_cuda():
        return Device(f"cuda:{_own_gpu()}", torch.bfloat16 if _has_cuda_bf16() else torch.float16, True)
    if wanted == "auto" and torch.backends.mps.is_available():
        has_bf16 = torch.backends.mps.is_macos_or_newer(14, 0)
        return Device("mps", torch.bfloat16 if has_bf16 else torch.float16, False)
    # Without AVX-512, training in bf16 took about 20 times as long as in fp32.
    return Device("cpu", torch.float32, True)


def choose_chat_device(device: str, dtype: str, base_dir: Path, machine: Machine) -> Device:
    """Return the device to chat on; `auto` is chosen for `machine`. Raise ScriptError if it lacks what was asked for.

    CUDA: 4 bits as in training, with the adapter beside them. Apple's GPU: float16. Processor: float32, or bfloat16 if the
    processor has instructions for it or the memory is too small.
    """
    if device == "auto":
        device = "cuda" if machine.has_cuda else "mps" if machine.has_mps else "cpu"
    if not {"cuda": machine.has_cuda, "mps": machine.has_mps, "cpu": True}[device]:
        raise ScriptError(f"--device {device}: torch finds no such device; leave it out")
    if dtype == "nf4" and not (device == "cuda" or (device == "cpu" and machine.has_processor_bf16)):
        raise ScriptError(
            f"--dtype nf4: needs a CUDA device or a processor with avx512_bf16 (on {device} it is slower than float32); "
            "leave it out"
        )
    if dtype == "nf4" and device == "cpu":
        return Device(device, torch.float32, is_quantized=True)
    if dtype not in ("auto", "nf4"):
        return Device(device, getattr(torch, dtype), is_quantized=False)
    if device == "cuda":
        return Device(device, torch.bfloat16 if machine.has_cuda_bf16 else torch.float16, is_quantized=True)
    if device == "mps":
        return Device(device, torch.float16, is_quantized=False)
    has_room = 4 * _num_parameters(base_dir) <= SHARE_OF_MEMORY * machine.memory_bytes
    is_full = has_room and not machine.has_processor_bf16
    return Device(device, torch.float32 if is_full else torch.bfloat16, is_quantized=False)


def make_quantization_config(device: Device) -> Any:
    """Return the settings with which a base is loaded in 4 bits, or None if `device` is not quantized.

    Raises ScriptError if bitsandbytes cannot be used.
    """
    if not device.is_quantized:
        return None
    try:
        import bitsandbytes  # noqa: F401
    except (ImportError, OSError, RuntimeError) as error:
        raise ScriptError(f"bitsandbytes: cannot be loaded ({reason_of(error)}); install it again") from None
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(**NF4, bnb_4bit_compute_dtype=device.dtype)


def choose_4bit_layout(model: torch.nn.Module, is_training: bool) -> None:
    """Let bitsandbytes repack the 4-bit layers of `model` for inference only where that is right.

    Where the processor has avx512_bf16, bitsandbytes 0.50 repacks a layer at its first forward pass in eval mode and
    leaves it so. The kernel for that layout is five times as fast, but has no backward pass (gradients are wrong without
    an error) and fits only some widths.
    """
    layer: Any
    for layer in model.modules():
        if hasattr(layer, "support_avx512bf16_for_cpu"):
            has_width = layer.out_features % REPACKED_ROWS == 0 and layer.in_features % REPACKED_COLUMNS == 0
            layer.support_avx512bf16_for_cpu &= has_width and not is_training


def find_model_class(config: Any) -> Any:
    """Return the library's class for a base with this config; raise ScriptError if it continues no text.

    Models that also read pictures have a class of their own: their text model is used.
    """
    from transformers import (
        MODEL_FOR_CAUSAL_LM_MAPPING,
        MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
        AutoModelForCausalLM,
        AutoModelForImageTextToText,
    )

    if type(config) in MODEL_FOR_CAUSAL_LM_MAPPING:
        return AutoModelForCausalLM
    if type(config) in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING:
        return AutoModelForImageTextToText
    raise ScriptError(
        f"{printable(config.model_type)}: is no kind of model that continues a text (causal LM); choose another base model"
    )


def load_causal_model(folder: Path, **arguments: Any) -> Any:
    """Load the checked base in `folder`; raise ScriptError if a weight is missing in its files or has another shape.

    The library gives a missing weight random values. `arguments` are those of its `from_pretrained`.
    """
    from transformers import AutoConfig

    other_shapes = f"{folder}: its weights have other shapes than its config.json; download the base model again"
    model_class = find_model_class(AutoConfig.from_pretrained(folder, trust_remote_code=False))
    try:
        model, information = model_class.from_pretrained(
            folder, trust_remote_code=False, use_safetensors=True, output_loading_info=True, **arguments
        )
    except RuntimeError as error:
        if "ignore_mismatched_sizes" not in str(error):
            raise
        raise ScriptError(other_shapes) from None
    missing = sorted(information["missing_keys"])
    head = model.get_output_embeddings()
    if missing and all(model.get_submodule(name.rpartition(".")[0]) is head for name in missing):
        raise ScriptError(
            f"{folder}: its weight files have no head to write text with ({printable(missing[0])}): it is a model that "
            "classifies or compares texts; choose a base that continues them"
        )
    if missing:
        raise ScriptError(
            f"{folder}: its weight files lack {counted(len(missing), 'tensor')} that its config.json asks for (such as "
            f"{printable(missing[0])}); download the base model again"
        )
    for layer in model.modules():
        # The library compares no shape of a weight that it quantizes.
        state = getattr(getattr(layer, "weight", None), "quant_state", None)
        if state is not None and tuple(state.shape) != (layer.out_features, layer.in_features):
            raise ScriptError(other_shapes)
    return model


def is_slow(device: Device, base_dir: Path) -> bool:
    """Return whether a reply takes minutes rather than seconds."""
    return device.kind == "cpu" and _weight_bytes(base_dir) >= SLOW_ON_CPU_BYTES


def can_use_cuda() -> bool:
    """Return whether torch finds a CUDA card for this process, and has kernels for one of its generation.

    On an older card than torch was built for, it finds the card, and the first kernel raises an error.
    """
    if not torch.cuda.is_available():
        return False
    built_for = torch.cuda.get_arch_list() if torch.version.cuda else []  # such as sm_86, compute_120
    major, minor = torch.cuda.get_device_capability(_own_gpu()) if built_for else (0, 0)
    for architecture in built_for:
        kind, _, number = architecture.partition("_")
        built_major, built_minor = divmod(int("".join(filter(str.isdigit, number))), 10)
        # Kernels run on later cards of their generation; what the driver compiles (compute_), on all later ones.
        if (
            minor >= built_minor
            and major == built_major
            or kind == "compute"
            and (major, minor) >= (built_major, built_minor)
        ):
            return True
    return not built_for


def _own_gpu() -> int:
    return int(os.environ.get("LOCAL_RANK", "0"))  # the launcher counts the processes of this machine


def unused_gpu_notice() -> str | None:
    """Return a sentence if this machine has an NVIDIA GPU that this torch cannot use, else None."""
    if can_use_cuda() or not any(Path(path).exists() for path in NVIDIA_DRIVER_PATHS):
        return None
    if torch.cuda.is_available():
        return (
            f"this torch has no kernels for {printable(torch.cuda.get_device_name(_own_gpu()))}; see the README's torch command "
            "(Systems)"
        )
    if torch.version.cuda is None:
        return "this torch was built without CUDA although there is an NVIDIA GPU; see the README's torch command (Systems)"
    return f"torch cannot use the NVIDIA GPU of this machine (built for CUDA {torch.version.cuda}); update its driver"


def _has_cuda_bf16() -> bool:
    # Cards before Ampere (T4, RTX 20) only emulate bf16, slowly; by default torch counts that as support.
    return can_use_cuda() and torch.cuda.is_bf16_supported(including_emulation=False)


def _weight_bytes(base_dir: Path) -> int:
    return sum(path.stat().st_size for path in list_weight_files(base_dir))


def _num_parameters(base_dir: Path) -> float:
    config = read_json_object(base_dir / "config.json")
    stored = str(config.get("dtype") or config.get("torch_dtype"))
    return _weight_bytes(base_dir) / (4 if stored == "float32" else 2)


def _processor_flags() -> set[str]:
    try:
        information = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:  # no Linux: Apple's processors, where float32 is right
        return set()
    return {flag for line in information.splitlines() if line.startswith("flags") for flag in line.split()}
