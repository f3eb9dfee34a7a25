"""On what the model computes, and in which numbers: decided from the machine, or as asked.

It leaves loading to `trained_model`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from chat_script import ScriptError
from model_files import list_weight_files

# Without these instructions a processor reads a prompt five times slower in bfloat16 than in float32 (measured).
BF16_PROCESSOR_FLAGS = {"avx512_bf16", "amx_bf16"}
SHARE_OF_MEMORY = 0.8  # the rest is for the cache, the system and everybody else
SLOW_ON_CPU_BYTES = 4e9  # a base from here on (2 billion parameters in 16 bits) writes a word in seconds


@dataclass(frozen=True)
class ComputePlan:
    """Where the weights go and the numbers computed with."""

    device: str
    dtype: torch.dtype
    is_quantized: bool  # base weights in 4 bits (NF4), as in training on a GPU

    def __str__(self) -> str:
        """Return it as messages show it."""
        number_type = str(self.dtype).removeprefix("torch.")
        return f"{self.device}, {'4 bits, ' if self.is_quantized else ''}{number_type}"


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
    has_cuda = torch.cuda.is_available()
    return Machine(
        has_cuda=has_cuda,
        has_cuda_bf16=has_cuda and torch.cuda.is_bf16_supported(),
        has_mps=torch.backends.mps.is_available(),
        has_processor_bf16=bool(BF16_PROCESSOR_FLAGS & _processor_flags()),
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
    )


def plan_computing(device: str, dtype: str, base_dir: Path, machine: Machine) -> ComputePlan:
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
        return ComputePlan(device, getattr(torch, dtype), is_quantized=False)
    if device == "cuda":
        return ComputePlan(device, torch.bfloat16 if machine.has_cuda_bf16 else torch.float16, is_quantized=True)
    if device == "mps":
        return ComputePlan(device, torch.float16, is_quantized=False)
    has_room = 4 * _num_parameters(base_dir) <= SHARE_OF_MEMORY * machine.memory_bytes
    is_full = has_room and not machine.has_processor_bf16
    return ComputePlan(device, torch.float32 if is_full else torch.bfloat16, is_quantized=False)


def is_slow(plan: ComputePlan, base_dir: Path) -> bool:
    """Return whether a reply will take minutes rather than seconds."""
    return plan.device == "cpu" and _weight_bytes(base_dir) >= SLOW_ON_CPU_BYTES


def quantization_config(plan: ComputePlan, settings: Mapping[str, Any]) -> Any:
    """Return what the loader needs for a quantized plan (double quantization as in training), else None."""
    if not plan.is_quantized:
        return None
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=bool(settings.get("quantization", {}).get("bnb_4bit_use_double_quant", True)),
        bnb_4bit_compute_dtype=plan.dtype,
    )


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
