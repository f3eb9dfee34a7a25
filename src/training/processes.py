"""One process or several: which one prints, how many threads compute, whether a launcher started what was asked for.

Starting the processes is left to `torchrun` and `accelerate launch`, talking to each other to torch. Standard library
only, so that it can answer before torch is imported.
"""

from __future__ import annotations

import os
import sys

from common.script import ScriptError, printable_lines

# Launchers other than torchrun announce the number of processes, and of this one, under their own names.
WORLD_SIZE_NAMES = ("WORLD_SIZE", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE")
RANK_NAMES = ("RANK", "OMPI_COMM_WORLD_RANK", "PMI_RANK", "MV2_COMM_WORLD_RANK")
# By these, accelerate's launcher announces that the model is to be split. On a processor accelerate 1.15 ignores them
# without a word and trains whole copies, so what they do with 4-bit weights could not be tested.
SPLITTING_NAMES = ("ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED", "ACCELERATE_USE_MEGATRON_LM")


def world_size() -> int:
    """Return the number of processes that train together."""
    return max(int(os.environ.get(name, 1)) for name in WORLD_SIZE_NAMES)


def local_world_size() -> int:
    """Return the number of them on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", 1))


def is_first_process() -> bool:
    """Return whether this process is the one that prints and writes."""
    return all(int(os.environ.get(name, 0)) == 0 for name in RANK_NAMES)


def say(text: str = "") -> None:
    """Print `text` from the first process only; what acts on a terminal is escaped."""
    if is_first_process():
        print(printable_lines(text), flush=True)


def warn(text: str) -> None:
    """Print a warning on stderr, from the first process only; what acts on a terminal is escaped."""
    if is_first_process():
        print(f"warning: {printable_lines(text)}", file=sys.stderr, flush=True)


def check_launch() -> None:
    """Raise ScriptError if the launcher was asked for what it does not do here: more processes than one, or a split model."""
    for name in SPLITTING_NAMES:
        if os.environ.get(name, "").lower() == "true":
            raise ScriptError(
                "accelerate launch: each process trains with the whole model in 4 bits, splitting it over GPUs is not "
                "supported; remove FSDP or DeepSpeed from the launcher's settings"
            )
    # `accelerate launch --cpu --num_processes 2` sets the address of a first process, then silently starts only one.
    asked_for_several = "ACCELERATE_MIXED_PRECISION" in os.environ and "MASTER_ADDR" in os.environ
    if asked_for_several and not any(name in os.environ for name in WORLD_SIZE_NAMES):
        raise ScriptError(
            "accelerate launch: several processes were asked for, but --cpu starts only one; "
            "use torchrun --nproc-per-node N, or accelerate launch --multi_gpu --num_processes N"
        )


def use_threads(wanted: int | None) -> None:
    """Compute with `wanted` threads, or one per physical core: a second one on a core only slows it down."""
    import psutil
    import torch

    if wanted is None and "OMP_NUM_THREADS" in os.environ:
        return  # the user's choice, or torchrun's
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    torch.set_num_threads(wanted or min(psutil.cpu_count(logical=False) or 1, available))
