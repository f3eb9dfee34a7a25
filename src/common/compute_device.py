"""Where a model computes and in which numbers: one rule for training, one for the chat, both from what the machine offers.

It leaves loading to `qlora_model` and `trained_model`.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from common.base_model_files import list_weight_files
from common.script import ScriptError

# The QLoRA paper's storage: normal-float 4, its scales quantized once more (0.516 bytes a weight).
NF4 = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True}

# Without these instructions a processor reads a prompt five times slower in bfloat16 than in float32 (measured).
BF16_PROCESSOR_FLAGS = {"avx512_bf16", "amx_bf16"}
SHARE_OF_MEMORY = 0.8  # the rest is for the cache, the system and everybody else
SLOW_ON_CPU_BYTES = 4e9  # a base from here on (2 billion parameters in 16 bits) writes a word in seconds


@dataclass(frozen=True)
class Device:
    """Where a model computes, and in which numbers whatever is not stored in 4 bits."""

    name: str  # for torch: "cuda:0", "cuda", "mps", "cpu"
    dtype: torch.dtype
    is_quantized: bool  # the base's layers are stored in 4 bits (NF4)

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
    """What this computer offers."""

    has_cuda: bool
    has_cuda_bf16: bool
    has_mps: bool
    has_processor_bf16: bool
    memory_bytes: float


def look_at_machine() -> Machine:
    """Return what this computer and this torch offer."""
    return Machine(
        has_cuda=torch.cuda.is_available(),
        has_cuda_bf16=_has_cuda_bf16(),
        has_mps=torch.backends.mps.is_available(),
        has_processor_bf16=bool(BF16_PROCESSOR_FLAGS & _processor_flags()),
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
    )


def choose_training_device(wanted: str = "auto") -> Device:
    """Return the best device to train on: the GPU of this process, a Mac's GPU, or the processor ("cpu": always)."""
    if wanted == "auto" and torch.cuda.is_available():
        number = os.environ.get("LOCAL_RANK", "0")  # the launcher counts the processes of this machine
        return Device(f"cuda:{number}", torch.bfloat16 if _has_cuda_bf16() else torch.float16, True)
    if wanted == "auto" and torch.backends.mps.is_available():
        has_bf16 = torch.backends.mps.is_macos_or_newer(14, 0)
        return Device("mps", torch.bfloat16 if has_bf16 else torch.float16, False)
    # On a processor without AVX-512 bf16 is about 20 times slower than fp32 (measured).
    return Device("cpu", torch.float32, True)


def choose_chat_device(device: str, dtype: str, base_dir: Path, machine: Machine) -> Device:
    """Choose for `machine` what was left `auto`; raise ScriptError when what was asked is not there.

    With CUDA 4 bits as in training, the adapter beside them; on Apple's GPU float16; on a processor float32, or
    bfloat16 where the processor has instructions for it or the memory is too small.
    """
    if device == "auto":
        device = "cuda" if machine.has_cuda else "mps" if machine.has_mps else "cpu"
    if not {"cuda": machine.has_cuda, "mps": machine.has_mps, "cpu": True}[device]:
        raise ScriptError(f"--device {device}: this torch finds no such device; leave --device out")
    if dtype == "nf4" and device != "cuda":
        raise ScriptError(
            f"--dtype nf4: four bits are for a CUDA device, slower than float32 on {device}; leave it out"
        )
    if dtype not in ("auto", "nf4"):
        return Device(device, getattr(torch, dtype), is_quantized=False)
    if device == "cuda":
        return Device(device, torch.bfloat16 if machine.has_cuda_bf16 else torch.float16, is_quantized=True)
    if device == "mps":
        return Device(device, torch.float16, is_quantized=False)
    has_room = 4 * _num_parameters(base_dir) <= SHARE_OF_MEMORY * machine.memory_bytes
    is_full = has_room and not machine.has_processor_bf16
    return Device(device, torch.float32 if is_full else torch.bfloat16, is_quantized=False)


def make_quantization_config(device: Device, stored_as: torch.dtype = torch.uint8) -> Any:
    """Return what the loader needs to store a base in 4 bits on `device`, None where it stays as it is.

    `stored_as` is the dtype of the tensors that hold the 4-bit values. Raises ScriptError without bitsandbytes.
    """
    if not device.is_quantized:
        return None
    try:
        import bitsandbytes  # noqa: F401
    except (ImportError, OSError, RuntimeError) as error:
        raise ScriptError(f"bitsandbytes: cannot be used here ({error}); install it again") from None
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(**NF4, bnb_4bit_compute_dtype=device.dtype, bnb_4bit_quant_storage=stored_as)


def is_slow(device: Device, base_dir: Path) -> bool:
    """Return whether a reply will take minutes rather than seconds."""
    return device.kind == "cpu" and _weight_bytes(base_dir) >= SLOW_ON_CPU_BYTES


def unused_gpu_notice() -> str | None:
    """Return a sentence when this machine has an NVIDIA GPU that this torch cannot use, else None."""
    if torch.cuda.is_available() or not Path("/proc/driver/nvidia/version").exists():
        return None
    if torch.version.cuda is None:
        return "this torch was built without CUDA although there is an NVIDIA GPU; see the README's torch command"
    return f"torch cannot use the NVIDIA GPU of this machine (built for CUDA {torch.version.cuda}); update its driver"


def _has_cuda_bf16() -> bool:
    # Cards before Ampere (T4, RTX 20) only emulate bf16, slowly, and count as able unless asked otherwise.
    return torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)


def _weight_bytes(base_dir: Path) -> int:
    return sum(path.stat().st_size for path in list_weight_files(base_dir))


def _num_parameters(base_dir: Path) -> float:
    config = json.loads((base_dir / "config.json").read_text(encoding="utf-8"))
    stored = str(config.get("dtype") or config.get("torch_dtype"))
    return _weight_bytes(base_dir) / (4 if stored == "float32" else 2)


def _processor_flags() -> set[str]:
    try:
        information = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:  # no Linux: Apple's processors, where float32 is right
        return set()
    return {flag for line in information.splitlines() if line.startswith("flags") for flag in line.split()}
