"""Hours are said before gigabytes: the time of a training is announced, and a long one on a processor is asked about.

The estimate itself is in `training_time`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from disk_space import shown_download
from known_bases import KnownBase, bases_for, find_config
from memory_estimate import CPU_LIBRARIES_BYTES, count_weights, estimate_memory, shown_gib
from memory_plan import available_bytes, fits_into_memory, load_of, plan_memory, refuse_what_does_not_fit
from model_shape import Load, read_context
from processes import say, warn, world_size
from recipes import shorten_to_context
from training_options import own_command
from training_time import Speed, measure_speed, shown_duration, training_seconds
from training_work import Work, count_work, measure_work

from common.base_model_files import BaseModel
from common.compute_device import Device, choose_training_device, unused_gpu_notice
from common.conversation_data import TrainingData
from common.script import ScriptError

if TYPE_CHECKING:
    from prepared_run import Run

MAX_CPU_SECONDS = 3600  # before a longer run on a processor, the user is asked
NUM_NAMED_BASES = 3  # of those that take less


def announce_before_download(
    options: argparse.Namespace,
    data: TrainingData,
    base: BaseModel,
    num_bytes: int,
    corrections: TrainingData | None = None,
) -> None:
    """Say how long training will take once the base is downloaded; ask where a processor would take more than an hour.

    Raises ScriptError if training would not fit into the memory, or the answer is no.
    """
    config, device = find_config(base), choose_training_device(options.device)
    recipe = shorten_to_context(options.recipe, read_context(config))
    corrected = [] if corrections is None else corrections.conversations
    work, available = count_work(data.conversations, recipe, base, corrected), available_bytes(device)
    if device.kind != "cuda":
        available -= CPU_LIBRARIES_BYTES  # loaded after the download, when the memory is compared again
    load, _count, training, _chat = plan_memory(
        config, device, load_of(recipe, work, device), available, options.activation_checkpointing
    )
    problem = None
    if not fits_into_memory(training, available):
        problem = f"it does not fit either: training takes {shown_gib(training.total)}, {shown_gib(available)} are free"
    bases, download = bases_for(data.conversations), shown_download(num_bytes)
    announce_time(options, base, config, device, work, load.gradient_checkpointing, bases, download, problem)
    refuse_what_does_not_fit(base, config, device, load, training, available)


def announce_run(run: Run, gradient_checkpointing: bool) -> None:
    """Say how long training will take; ask where a processor would take more than an hour."""
    notice = unused_gpu_notice()
    if notice:
        warn(notice)
    work = measure_work(run.material)
    bases = bases_for(run.data.conversations)
    announce_time(run.options, run.base, find_config(run.base), run.device, work, gradient_checkpointing, bases)


def announce_time(
    options: argparse.Namespace,
    base: BaseModel,
    config: Mapping[str, Any],
    device: Device,
    work: Work,
    gradient_checkpointing: bool,
    bases: Sequence[KnownBase],
    download: str | None = None,
    problem: str | None = None,
) -> None:
    """Print the time; ask about a long run on a processor, unless there is a `problem` because of which it is refused.

    `bases`: those that may be named instead.
    """
    speed = measure_speed(device, count_weights(config))
    seconds = training_seconds(config, device, work, speed, gradient_checkpointing)
    if is_to_confirm(device, options.device, seconds):
        notice = unused_gpu_notice()
        after_download = f", after a download of {download}" if download else ""
        lines = [
            f"{base.name}: training would take {shown_duration(seconds)} on this processor{after_download}; there is no "
            "usable GPU",
            *([f"  {notice}"] if notice else []),
            *describe_roads(seconds, work, speed, bases),
        ]
        if problem:
            raise ScriptError("\n".join([*lines, f"  {problem}"]))
        confirm_long_run(lines)
        options.device = "cpu"  # as if chosen by flag: after the download nobody is asked again
    say(f"Time: training takes {shown_duration(seconds)} on {device.name} (measured in a short run of the same work)")


def is_to_confirm(device: Device, wanted_device: str, seconds: float) -> bool:
    """Return whether the user is asked before a run of this length: on a processor that was not chosen by flag."""
    return device.kind == "cpu" and wanted_device == "auto" and seconds > MAX_CPU_SECONDS


def describe_roads(seconds: float, work: Work, speed: Speed, bases: Sequence[KnownBase]) -> list[str]:
    """Return the lines about what to do instead of a run of so many `seconds` on a processor: a base that takes less, a card."""
    processor = choose_training_device("cpu")
    available = available_bytes(processor)
    faster = []
    for known in bases:
        known_seconds = training_seconds(known.config, processor, work, speed)
        fits = estimate_memory(known.config, processor, Load(row_tokens=work.row_tokens))[1].total <= available
        if known_seconds < seconds and fits:
            faster.append((known, known_seconds))
    within = [entry for entry in faster if entry[1] <= MAX_CPU_SECONDS]
    named = within[-NUM_NAMED_BASES:] if len(within) >= NUM_NAMED_BASES else faster[:NUM_NAMED_BASES]
    lines = ["  bases that take less (--base-model-id):"] if named else []
    for known, known_seconds in named:
        download = shown_download(2 * count_weights(known.config).total)  # published in two bytes per weight
        lines.append(
            f"    {known.name}: {shown_duration(known_seconds)}, {download} to download; languages: {known.languages}"
        )
    return [*lines, '  or train on a rented or borrowed card, and chat here (README, "Without an NVIDIA card")']


def confirm_long_run(lines: Sequence[str]) -> None:
    """Show the lines and ask whether to train all the same; raise ScriptError if not, or if there is nobody to ask."""
    if world_size() > 1 or not (sys.stdin.isatty() and sys.stdout.isatty()):
        command = own_command(*sys.argv[1:], "--device", "cpu")
        raise ScriptError("\n".join([*lines, "  to train all the same:", f"    {command}"]))
    say("\n".join(lines))
    try:
        answer = input("Train all the same? [y/N] ")
    except EOFError:
        answer = ""
    if answer.strip().lower() not in ("y", "yes"):
        raise ScriptError("not trained, as you wished; nothing was downloaded or written")
