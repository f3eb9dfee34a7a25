"""What of the free memory a run takes: gradient checkpointing and the optimizer are chosen by it, and what does not fit is refused.

The memory itself is estimated by `memory_estimate`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import torch
from checkpoints import read_run_facts
from known_bases import find_config, known_bases
from memory_estimate import NF4_BYTES, MemoryEstimate, count_weights, estimate_memory, shown_gib
from model_shape import Load, ParameterCount
from processes import local_world_size, say, world_size
from recipes import FUSED_OPTIMIZER, PAGED_OPTIMIZER, Recipe
from training_work import Work, measure_work

from common.base_model_files import BaseModel
from common.compute_device import Device
from common.script import ScriptError

if TYPE_CHECKING:
    from prepared_run import Run

ESTIMATE_ERROR = 0.1  # the memory estimate is within 10 %, for families that are not counted, too
# Activations are kept if training takes at most this share of the free memory. Main memory is shared with other programs.
SHARE_FOR_KEEPING = {"cuda": 1 - ESTIMATE_ERROR, "mps": 0.5, "cpu": 0.5}
FALLBACK_LENGTHS = (1024, 512)


def choose_by_memory(run: Run, checkpoint: Path | None) -> tuple[bool, str]:
    """Return whether to use gradient checkpointing, and the optimizer; print why.

    Raises ScriptError if training does not fit either way. A resumed run keeps the optimizer of `checkpoint`.
    """
    assert run.base.folder is not None
    config, load = find_config(run.base), load_of(run.recipe, measure_work(run.material), run.device)
    available, checkpointing = available_bytes(run.device), run.options.activation_checkpointing
    optimizer = None
    if checkpoint is not None:  # the states of one are not those of the other; older checkpoints do not name it
        optimizer = read_run_facts(checkpoint).get("optimizer", load.optimizer)
    load, _count, training, _chat = plan_memory(config, run.device, load, available, checkpointing, optimizer)
    say(
        f"Memory: training takes about {shown_gib(training.total)}, {run.device.name} has {shown_gib(available)} free\n"
        f"  {shown_keeping(load)}"
    )
    refuse_what_does_not_fit(run.base, config, run.device, load, training, available)
    return load.gradient_checkpointing, load.optimizer


def load_of(recipe: Recipe, work: Work | None, device: Device) -> Load:
    """Return what decides the memory of one step; without data, rows are as long as `recipe` allows."""
    load = Load(
        row_tokens=recipe.max_length,
        rank=recipe.rank,
        alpha=recipe.alpha,
        dropout=recipe.dropout,
        adapter_dtype=getattr(torch, recipe.adapter_dtype),
        chat_tokens=recipe.max_length,
    )
    if recipe.train_on == "everyone":
        load = replace(load, supervised_share=1.0)
    if work is not None:
        load = replace(
            load,
            row_tokens=work.row_tokens,
            supervised_share=work.supervised_share,
            accumulates=work.rows_per_step > world_size(),
        )
    if device.kind == "cuda":
        load = replace(load, optimizer=PAGED_OPTIMIZER)
    if device.kind == "cuda" and world_size() == 1:  # captured rows add to gradients that stay where they are
        load = replace(load, is_captured=True, accumulates=True)
    return load


def plan_memory(
    config: Mapping[str, Any],
    device: Device,
    load: Load,
    available: int,
    checkpointing: str = "auto",
    optimizer: str | None = None,
) -> tuple[Load, ParameterCount, MemoryEstimate, MemoryEstimate]:
    """Choose gradient checkpointing and the optimizer by the memory that is there.

    `checkpointing` is "on", "off", or "auto", which uses it only where memory is short; `optimizer` is None for the
    faster one that fits. Returns `load` with the choices, the number of parameters, and the memory of training and of a
    chat.
    """
    comfortable = SHARE_FOR_KEEPING[device.kind] * available
    if optimizer is not None:
        load = replace(load, optimizer=optimizer)
    chosen = load if checkpointing == "on" else replace(load, gradient_checkpointing=False)
    estimates = estimate_memory(config, device, chosen)
    if checkpointing == "auto" and estimates[1].total > comfortable:
        chosen = load
        estimates = estimate_memory(config, device, chosen)
    if optimizer is None and world_size() == 1:  # cards with different room would choose differently
        faster = replace(chosen, optimizer=FUSED_OPTIMIZER)
        estimates_of_faster = estimate_memory(config, device, faster)
        if estimates_of_faster[1].total <= comfortable:
            return faster, *estimates_of_faster
    return chosen, *estimates


def shown_keeping(load: Load) -> str:
    """Return the line about gradient checkpointing, with the flag that asks for the same."""
    if load.gradient_checkpointing:
        return "gradient checkpointing: less memory, more time (--activation-checkpointing on)"
    return "no gradient checkpointing: activations are kept (--activation-checkpointing off)"


def available_bytes(device: Device) -> int:
    """Return the free memory of the device; several processes on one processor share it equally."""
    if device.kind == "cuda":
        free_bytes, total_bytes = torch.cuda.mem_get_info(device.name)
        # The process may have been given a part of the card.
        own_bytes = torch.cuda.get_per_process_memory_fraction(device.name) * total_bytes
        return min(free_bytes, int(own_bytes))
    if device.kind == "mps":
        return int(torch.mps.recommended_max_memory())
    return int(psutil.virtual_memory().available) // local_world_size()


def refuse_what_does_not_fit(
    base: BaseModel, config: Mapping[str, Any], device: Device, load: Load, training: MemoryEstimate, available: int
) -> None:
    """Raise ScriptError if training does not fit into `available` bytes."""
    if not fits_into_memory(training, available):
        raise ScriptError(
            f"{base.name}: does not fit; training takes {shown_gib(training.total)}. "
            f"{advise_on_memory(config, device, load, available)}"
        )


def fits_into_memory(training: MemoryEstimate, available: int) -> bool:
    """Return whether training may fit into `available` bytes: the estimate may be 10 % too high.

    The memory of the libraries does not count: it is no longer among what is available.
    """
    return (training.total - training.libraries) * (1 - ESTIMATE_ERROR) <= available


def advise_on_memory(config: Mapping[str, Any], device: Device, load: Load, available: int) -> str:
    """Return the smallest change with which the same estimate fits."""
    and_more = ""
    if not load.gradient_checkpointing:
        load = replace(load, gradient_checkpointing=True)
        training = estimate_memory(config, device, load)[1]
        if training.total <= available:
            return f"Leave out --activation-checkpointing off (then {shown_gib(training.total)})."
        and_more = "Leave out --activation-checkpointing off. "
    for length in FALLBACK_LENGTHS:
        if length < load.row_tokens:
            training = estimate_memory(config, device, replace(load, row_tokens=length))[1]
            if training.total <= available:
                return f"{and_more}Pass --max-length {length} (then {shown_gib(training.total)})."
    for known in reversed(known_bases()):
        num_weights = count_weights(known.config).total
        if num_weights >= count_weights(config).total or num_weights * NF4_BYTES > available:
            continue
        training = estimate_memory(known.config, device, load)[1]
        if training.total <= available:
            return f"{and_more}Pass --base-model-id {known.name} (then {shown_gib(training.total)})."
    return "No base of the README fits; free some memory."
