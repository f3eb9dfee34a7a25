"""What training and chat both fuse: RMS norms as one kernel of torch each, and which layers have the same input.

The library's norms are seven operations on all activations, most of them in fp32: on an H100, a tenth of the card's time in
training. torch's own computes in fp32 inside, reads the input once and keeps no copy of it in fp32.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch

# Layers of one module that Llama-like models call with the same input, in the order of their calls.
SAME_INPUT = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))

# Of the largest output. The library rounds between the operations, torch once.
TOLERANCES = {torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float16: 3e-3}


def fuse_norms(model: torch.nn.Module) -> int:
    """Replace the forward pass of the RMS norms of `model` that multiply by their weight; return how many.

    Norms that compute anything else (Gemma 2 and 3 multiply by one more than the weight) stay as they are.
    """
    norms = [module for module in model.modules() if is_plain_norm(module)]
    for norm in norms:
        # On this object only, as libraries with fused kernels do it.
        norm.forward = functools.partial(_normalize, norm, norm.forward)
    return len(norms)


@torch.no_grad()
def is_plain_norm(module: Any) -> bool:
    """Return whether `module` is called an RMS norm, and gives what torch's norm with its weight gives."""
    weight = getattr(module, "weight", None)
    if not type(module).__name__.endswith("RMSNorm") or weight is None or _epsilon(module) is None:
        return False
    rows = torch.linspace(-3, 2, 4 * weight.numel(), dtype=weight.dtype, device=weight.device).view(4, -1)
    expected = module(rows)
    difference = (expected - _normalize(module, module, rows)).abs().max()
    return bool(difference <= TOLERANCES[weight.dtype] * expected.abs().max())


def _normalize(norm: Any, own_forward: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    if x.dtype != norm.weight.dtype:
        return own_forward(x)
    with torch.autocast(x.device.type, enabled=False):  # it would turn the output into fp32
        return torch.nn.functional.rms_norm(x, norm.weight.shape, norm.weight, _epsilon(norm))


def _epsilon(norm: Any) -> float | None:
    return getattr(norm, "variance_epsilon", getattr(norm, "eps", None))
