"""The answer to `--check`: what a run needs and what the machine has, before any weight is loaded or downloaded."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from disk_space import describe_disk, find_disk_problem
from known_bases import bases_for, find_config
from long_run import describe_roads, is_to_confirm
from memory_estimate import GIB, MemoryEstimate, count_weights, shown_gib
from memory_plan import advise_on_memory, available_bytes, load_of, plan_memory, shown_keeping
from model_shape import read_context
from recipes import Recipe, shorten_to_context
from training_time import Speed, measure_speed, shown_duration, training_seconds
from training_work import Work, count_work, work_of_replies

from common.base_model_files import BaseModel, check_base_folder, find_base
from common.compute_device import Device, choose_training_device, unused_gpu_notice
from common.conversation_data import Conversation, TrainingData

EXAMPLE_REPLIES = (1_000, 5_000, 20_000)


def check_options(
    options: argparse.Namespace, data: TrainingData | None, corrections: TrainingData | None = None
) -> list[str]:
    """Return the lines of `--check`. Tokens are counted apart from the run, whose libraries take longer than the check."""
    device = choose_training_device(options.device)
    base = find_base(options.base_model_id, options.start_dir)
    if base.folder is not None:
        check_base_folder(base.folder)
    recipe = shorten_to_context(options.recipe, read_context(find_config(base)))
    conversations = [] if data is None else data.conversations
    corrected = [] if corrections is None else corrections.conversations
    work = None if data is None else count_work(conversations, recipe, base, corrected)
    return check_run(
        base,
        device,
        recipe,
        work,
        options.model_dir,
        options.activation_checkpointing,
        options.resume,
        options.device,
        conversations,
    )


def check_run(
    base: BaseModel,
    device: Device,
    recipe: Recipe,
    work: Work | None,
    output_dir: Path,
    checkpointing: str = "auto",
    resumes: bool = False,
    wanted_device: str = "auto",
    conversations: Sequence[Conversation] = (),
) -> list[str]:
    """Return the lines of `--check`: what the run needs, and what the machine has. Raises BaseModelError.

    `conversations`: whose language the bases know that are named instead of one that takes long.
    """
    config = find_config(base)
    available = available_bytes(device)
    load, count, training, chat = plan_memory(config, device, load_of(recipe, work, device), available, checkpointing)
    speed = measure_speed(device, count_weights(config))
    lines = [
        f"Check of {base.name} on {device.name}, {_shown_dtype(device)} (nothing is loaded or downloaded)",
        f"  parameters  {count.total:,}; trained: {count.trainable:,} ({count.trainable_percent:.4f} %)",
        *describe_work(config, device, work, recipe, speed, not load.gradient_checkpointing, base.folder is None),
        describe_disk(base, count, output_dir, load.adapter_dtype),
        f"  memory      training {shown_gib(training.total)}: {_shown_parts(training)}",
        f"              chat     {shown_gib(chat.total)}: {_shown_parts(chat)}",
        f"              (training in rows of {load.row_tokens:,} tokens; a chat with a context of {load.chat_tokens:,})",
        f"              {shown_keeping(load)}",
        f"  free        {shown_gib(available)} on {device.name}",
    ]
    notice = unused_gpu_notice()
    if notice:
        lines.append(f"  note        {notice}")
    problems = [] if training.total <= available else [advise_on_memory(config, device, load, available)]
    disk_problem = find_disk_problem(count, output_dir, resumes)
    if disk_problem:
        problems.append(disk_problem)
    lines += [f"  It does not fit. {problem}" for problem in problems]
    judged = work_of_replies(EXAMPLE_REPLIES[0], recipe) if work is None else work
    seconds = training_seconds(config, device, judged, speed, load.gradient_checkpointing)
    if is_to_confirm(device, wanted_device, seconds):
        data = f" already with {EXAMPLE_REPLIES[0]:,} replies" if work is None else ""
        lines.append(
            f"  It takes long{data}: {shown_duration(seconds)} on this processor; there is no usable GPU. You will be "
            "asked before training begins."
        )
        lines += describe_roads(seconds, judged, speed, bases_for(conversations))
    elif not problems:
        lines.append("  It fits.")
    return lines


def describe_work(
    config: Mapping[str, Any],
    device: Device,
    work: Work | None,
    recipe: Recipe,
    speed: Speed,
    keeps: bool,
    is_guessed: bool,
) -> list[str]:
    """Return the lines of `--check` about tokens, steps and time; `keeps`: activations are kept."""
    if work is None:
        times = [
            f"{_shown_time(config, device, work_of_replies(number, recipe), speed, keeps)} for {number:,} replies"
            for number in EXAMPLE_REPLIES
        ]
        return ["  tokens      not known (there is no data yet)", f"  time        {', '.join(times)}"]
    supervised_percent = 100 * work.epoch_supervised_tokens / work.epoch_tokens
    tokens = (
        f"about {work.epoch_tokens:,} per epoch, {work.epoch_supervised_tokens:,} of them supervised "
        f"({supervised_percent:.0f} %)"
    )
    if is_guessed:
        tokens += "; a guess: the base's tokenizer is not on disk"
    steps = [f"  steps       about {work.num_steps:,} in up to {work.num_epochs} epochs"]
    time_line = (
        f"  time        {_shown_time(config, device, work, speed, keeps)} for all epochs, after the base is loaded"
    )
    return [f"  tokens      {tokens}", *steps, time_line]


def _shown_time(config: Mapping[str, Any], device: Device, work: Work, speed: Speed, keeps: bool) -> str:
    """Return the estimated time of training as messages show it: `about 2.1 hours`."""
    return shown_duration(training_seconds(config, device, work, speed, gradient_checkpointing=not keeps))


def _shown_parts(memory: MemoryEstimate) -> str:
    names: Sequence[tuple[str, int]] = (
        ("weights", memory.weights_4bit + memory.weights_other),
        ("adapter", memory.adapter),
        ("optimizer", memory.optimizer),
        ("activations", memory.activations),
        ("unpacking", memory.unpacking),
        ("libraries", memory.libraries),
    )
    return ", ".join(f"{name} {size / GIB:.2f}" for name, size in names if size)


def _shown_dtype(device: Device) -> str:
    return f"4-bit weights, the rest {device.dtype_name}" if device.is_quantized else device.dtype_name
