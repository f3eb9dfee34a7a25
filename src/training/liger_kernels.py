"""Rotary embeddings and SwiGLU by the Triton kernels of the optional package liger-kernel, on a CUDA card.

Each is one kernel forward and one backward. Triton compiles them at the first call, which needs a C compiler. Liger's
norms are replaced in their turn: `fused_layers` takes torch's, which are as fast without the package.
"""

from __future__ import annotations

import logging
import subprocess

import torch
from transformers import PreTrainedModel

from common.script import reason_of


def has_liger() -> bool:
    """Return whether liger-kernel is installed."""
    try:
        import liger_kernel.transformers  # noqa: F401
    except ImportError:  # also one of Triton, which liger-kernel needs
        return False
    return True


def apply_liger_kernels(model: PreTrainedModel) -> str | None:
    """Let `model` compute with Liger's kernels where there are some for its family; return why not, or None.

    The rotary embedding is replaced for all models of its family in this process: the library calls it by a global name.
    """
    from liger_kernel.ops import LigerSiLUMulFunction
    from liger_kernel.transformers import _apply_liger_kernel_to_instance

    row = torch.ones(1, 8, device=model.device, dtype=model.dtype)
    try:
        LigerSiLUMulFunction.apply(row, row)
    # Triton raises an AssertionError where the linker does not know the driver's library, as in some containers.
    except (RuntimeError, OSError, AssertionError, subprocess.CalledProcessError) as error:
        return f"Triton cannot compile Liger's kernels ({reason_of(error)})"
    # It warns of each kind of hardware and package that it has kernels for and that is not here.
    logging.getLogger("liger_kernel").setLevel(logging.ERROR)
    _apply_liger_kernel_to_instance(model=model, cross_entropy=False, fused_linear_cross_entropy=False)
    return None
