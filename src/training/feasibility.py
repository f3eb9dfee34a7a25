"""Does a run fit this machine, and how long does it take: memory, tokens, steps, time and disk.

It answers `--check`, refuses a run that does not fit or takes days, and chooses gradient checkpointing, all before any
weight is loaded. The memory estimate itself is in `memory_estimate`.
"""

from __future__ import annotations

import argparse
import math
import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import torch
from checkpoints import NUM_KEPT, list_checkpoints, read_run_facts
from held_out_sets import hold_out
from known_bases import find_config, known_bases
from memory_estimate import (
    GIB,
    NF4_BYTES,
    MemoryEstimate,
    count_weights,
    estimate_memory,
    shown_gib,
)
from model_shape import Load, ParameterCount, read_context
from processes import local_world_size, say, warn, world_size
from recipes import (
    FUSED_OPTIMIZER,
    PAGED_OPTIMIZER,
    Recipe,
    choose_epochs,
    choose_step_tokens,
    shorten_to_context,
    split_step,
)
from training_options import flags_without
from training_progress import shown_bytes
from training_time import Speed, Work, estimate_training_seconds, measure_speed

from common.base_model_files import BaseModel, check_base_folder, find_base
from common.compute_device import Device, choose_training_device, unused_gpu_notice
from common.conversation_data import Conversation, TrainingData
from common.conversation_header import headers_by_line
from common.model_folder import CHECKPOINTS_NAME
from common.outside_files import loading
from common.script import PROJECT_ROOT, ScriptError, printable, shown_path, shown_python

if TYPE_CHECKING:
    from prepared_run import Material, Run

STAGE_2_PATH = PROJECT_ROOT / "src/training/fine_tuning_model.py"

MAX_CPU_SECONDS = 3600  # before a longer run on a processor, the user is asked
NUM_NAMED_BASES = 3  # of those that take less

ESTIMATE_ERROR = 0.1  # the memory estimate is within 10 %, for families that are not counted, too
# Activations are kept if training takes at most this share of the free memory. Main memory is shared with other programs.
SHARE_FOR_KEEPING = {"cuda": 1 - ESTIMATE_ERROR, "mps": 0.5, "cpu": 0.5}

KEPT_CHECKPOINTS = NUM_KEPT + 1  # and the best one
# Guesses while there is no tokenizer, or no data: Hebrew has about 2.5 characters a token, English 4.
CHARS_PER_TOKEN = 3
TOKENS_PER_MARK = 5  # around each turn: whose it is, and its end
TOKENS_PER_REPLY = 27  # with what it answers; the demo's chat has 47 characters and two turns a reply
USUAL_FILL = 0.97  # of the rows
USUAL_SUPERVISED_SHARE = 0.6  # of the row that has most
EXAMPLE_REPLIES = (1_000, 5_000, 20_000)
FALLBACK_LENGTHS = (1024, 512)


def check_feasibility(options: argparse.Namespace, data: TrainingData | None) -> list[str]:
    """Return the lines of `--check`. Tokens are counted apart from the run, whose libraries take longer than the check."""
    device = choose_training_device(options.device)
    base = find_base(options.base_model_id, options.start_dir)
    if base.folder is not None:
        check_base_folder(base.folder)
    recipe = shorten_to_context(options.recipe, read_context(find_config(base)))
    work = None if data is None else count_work(data.conversations, recipe, base)
    return check_run(
        base, device, recipe, work, options.model_dir, options.activation_checkpointing, options.resume, options.device
    )


def announce_before_download(options: argparse.Namespace, data: TrainingData, base: BaseModel, num_bytes: int) -> None:
    """Say how long training will take once the base is downloaded; ask where a processor would take more than an hour."""
    config = find_config(base)
    work = count_work(data.conversations, shorten_to_context(options.recipe, read_context(config)), base)
    device = choose_training_device(options.device)
    announce_time(base, config, device, work, options.device, shown_bytes(num_bytes))


def announce_run(run: Run, gradient_checkpointing: bool) -> None:
    """Say how long training will take; ask where a processor would take more than an hour."""
    notice = unused_gpu_notice()
    if notice:
        warn(notice)
    work = measure_work(run.material)
    announce_time(
        run.base, find_config(run.base), run.device, work, run.options.device, None, not gradient_checkpointing
    )


def announce_time(
    base: BaseModel,
    config: Mapping[str, Any],
    device: Device,
    work: Work,
    wanted_device: str,
    download: str | None,
    keeps: bool = False,
) -> None:
    """Print the time, and ask about a long run on a processor unless `wanted_device` says "cpu"."""
    speed = measure_speed(device, count_weights(config))
    seconds = training_seconds(config, device, work, speed, gradient_checkpointing=not keeps)
    if is_to_confirm(device, wanted_device, seconds):
        confirm_long_run(describe_long_run(base, seconds, work, speed, download))
    say(
        f"Time: training takes about {shown_duration(seconds)} on {device.name} (measured in a short run of the same work)"
    )


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


def count_work(conversations: Sequence[Conversation], recipe: Recipe, base: BaseModel) -> Work:
    """Count the work with the base's tokenizer, or guess it from the characters while it is not on disk.

    Differs from what a run prepares by the exact template and by contexts that are read twice: a few percent.
    """
    held_out = hold_out(conversations)
    lines = {*held_out.validation, *held_out.spread, *held_out.latest}
    trained = [talk for talk in conversations if talk.line_number not in lines]
    messages = [message for talk in trained for message in talk.messages]
    headers = headers_by_line(conversations, recipe.context)
    texts = [message["content"] for message in messages]
    texts += [headers[talk.line_number] for talk in trained if headers[talk.line_number]]
    tokenizer_path = None if base.folder is None else base.folder / "tokenizer.json"
    if tokenizer_path is not None and tokenizer_path.is_file():
        from tokenizers import Tokenizer

        with loading(base.name, "its tokenizer", "choose another base model, or download it again"):
            tokenizer = Tokenizer.from_file(str(tokenizer_path))
            lengths = [len(encoding.ids) for encoding in tokenizer.encode_batch(texts, add_special_tokens=False)]
    else:
        lengths = [len(text) // CHARS_PER_TOKEN for text in texts]
    supervised = sum(
        length + 1  # and the end of the turn
        for length, message in zip(lengths, messages, strict=False)  # the headers are never supervised
        if message["role"] == "assistant" or recipe.train_on == "everyone"
    )
    num_replies = sum(talk.num_replies for talk in conversations)
    return _plan(sum(lengths) + TOKENS_PER_MARK * len(lengths), supervised, num_replies, recipe)


def work_of_replies(num_replies: int, recipe: Recipe) -> Work:
    """Guess the work for so many replies of the imitated person."""
    num_tokens = TOKENS_PER_REPLY * num_replies
    return _plan(num_tokens, num_tokens // 2, num_replies, recipe)


def _plan(num_tokens: int, num_supervised: int, num_replies: int, recipe: Recipe) -> Work:
    num_epochs = choose_epochs(recipe, num_replies)
    step_tokens = choose_step_tokens(recipe, num_tokens, num_epochs)
    row_tokens, rows_per_step = split_step(step_tokens, recipe.max_length, world_size())
    return Work(
        epoch_tokens=max(1, num_tokens),
        epoch_supervised_tokens=num_supervised,
        fill=USUAL_FILL,
        num_steps=num_epochs * math.ceil(num_tokens / (USUAL_FILL * row_tokens * rows_per_step)),
        num_epochs=num_epochs,
        row_tokens=row_tokens,
        supervised_share=USUAL_SUPERVISED_SHARE,
        rows_per_step=rows_per_step,
    )


def measure_work(material: Material) -> Work:
    """Return the work that `prepare_material` prepared."""
    supervised = [sum(chunk) for chunk in material.chunks["is_supervised"]]
    rows = [
        (sum(material.lengths[chunk] for chunk in row), sum(supervised[chunk] for chunk in row))
        for row in material.schedule.rows
    ]
    longest = max(tokens for tokens, _ in rows)
    return Work(
        epoch_tokens=material.num_tokens,
        epoch_supervised_tokens=material.num_supervised_tokens,
        fill=material.fill,
        num_steps=material.schedule.num_steps,
        num_epochs=len(material.schedule.epoch_ends),
        row_tokens=longest,
        supervised_share=max(num_supervised for _, num_supervised in rows) / longest,
        rows_per_step=material.schedule.rows_per_step,
        has_held_out=material.held_out is not None,
    )


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


def check_run(
    base: BaseModel,
    device: Device,
    recipe: Recipe,
    work: Work | None,
    output_dir: Path,
    checkpointing: str = "auto",
    resumes: bool = False,
    wanted_device: str = "auto",
) -> list[str]:
    """Return the lines of `--check`: what the run needs, and what the machine has. Raises BaseModelError."""
    config = find_config(base)
    available = available_bytes(device)
    load, count, training, chat = plan_memory(config, device, load_of(recipe, work, device), available, checkpointing)
    speed = measure_speed(device, count_weights(config))
    lines = [
        f"Check of {base.name} on {device.name}, {_shown_dtype(device)} (nothing is loaded or downloaded)",
        f"  parameters  {count.total:,}; trained: {count.trainable:,} ({count.trainable_percent:.4f} %)",
        *describe_work(config, device, work, recipe, speed, not load.gradient_checkpointing, base.folder is None),
        _disk_line(base, count, output_dir),
        f"  memory      training {shown_gib(training.total)}: {_shown_parts(training)}",
        f"              chat     {shown_gib(chat.total)}: {_shown_parts(chat)}",
        f"              (training in rows of {load.row_tokens:,} tokens; a chat with a context of {load.chat_tokens:,})",
        f"              {shown_keeping(load)}",
        f"  free        {shown_gib(available)} on {device.name}",
    ]
    notice = unused_gpu_notice()
    if notice:
        lines.append(f"  note        {notice}")
    if work is not None:
        seconds = training_seconds(config, device, work, speed, load.gradient_checkpointing)
        if is_to_confirm(device, wanted_device, seconds):
            lines += [
                "  But " + line.strip() if number == 0 else "  " + line
                for number, line in enumerate(describe_long_run(base, seconds, work, speed, None))
            ]
    problems = [] if training.total <= available else [_advice(config, device, load, available)]
    disk_problem = _disk_problem(count, output_dir, resumes)
    if disk_problem:
        problems.append(disk_problem)
    return [*lines, *([f"  It does not fit. {problem}" for problem in problems] or ["  It fits."])]


def is_to_confirm(device: Device, wanted_device: str, seconds: float) -> bool:
    """Return whether the user is asked before a run of this length: on a processor that was not chosen by flag."""
    return device.kind == "cpu" and wanted_device == "auto" and seconds > MAX_CPU_SECONDS


def describe_long_run(base: BaseModel, seconds: float, work: Work, speed: Speed, download: str | None) -> list[str]:
    """Return the lines that are shown before a long run on a processor: its time, and bases that take less."""
    processor = choose_training_device("cpu")
    available = available_bytes(processor)
    faster = []
    for known in known_bases():
        known_seconds = training_seconds(known.config, processor, work, speed)
        fits = estimate_memory(known.config, processor, Load(row_tokens=work.row_tokens))[1].total <= available
        if known_seconds < seconds and fits:
            faster.append((known.name, known_seconds))
    within = [entry for entry in faster if entry[1] <= MAX_CPU_SECONDS]
    named = within[-NUM_NAMED_BASES:] if len(within) >= NUM_NAMED_BASES else faster[:NUM_NAMED_BASES]
    first = f"{base.name}: training would take about {shown_duration(seconds)} on this processor"
    lines = [first + (f", after a download of {download}" if download else "") + "; there is no usable GPU"]
    notice = unused_gpu_notice()
    if notice:
        lines.append(f"  {notice}")
    if named:
        lines.append("  bases that take less (--base-model-id):")
        lines += [f"    {name}: about {shown_duration(of_name)}" for name, of_name in named]
    lines.append('  or train on a rented or borrowed card, and chat here (README, "Without an NVIDIA card")')
    return lines


def confirm_long_run(lines: Sequence[str]) -> None:
    """Show the lines and ask whether to train all the same; raise ScriptError if not, or if there is nobody to ask."""
    if world_size() > 1 or not (sys.stdin.isatty() and sys.stdout.isatty()):
        command = [shown_python(), shown_path(STAGE_2_PATH), *flags_without(), "--device", "cpu"]
        raise ScriptError("\n".join([*lines, "  to train all the same:", f"    {printable(shlex.join(command))}"]))
    say("\n".join(lines))
    try:
        answer = input("Train all the same? [y/N] ")
    except EOFError:
        answer = ""
    if answer.strip().lower() not in ("y", "yes"):
        raise ScriptError("not trained, as you wished; nothing was downloaded or written")


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
            f"{shown_time(config, device, work_of_replies(number, recipe), speed, keeps)} for {number:,} replies"
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
        f"  time        {shown_time(config, device, work, speed, keeps)} for all epochs, after the base is loaded"
    )
    return [f"  tokens      {tokens}", *steps, time_line]


def training_seconds(
    config: Mapping[str, Any], device: Device, work: Work, speed: Speed, gradient_checkpointing: bool = True
) -> float:
    """Estimate how long all epochs take in the processes that were started: GPUs share the rows, one processor does not."""
    seconds = estimate_training_seconds(
        config, device, work, speed, gradient_checkpointing, is_captured=world_size() == 1
    )
    return seconds / world_size() if device.kind == "cuda" else seconds


def shown_time(config: Mapping[str, Any], device: Device, work: Work, speed: Speed, keeps: bool) -> str:
    """Return the estimated time of training as messages show it: `about 2:10:00`."""
    seconds = training_seconds(config, device, work, speed, gradient_checkpointing=not keeps)
    return f"about {shown_duration(seconds)}"


def shown_duration(seconds: float) -> str:
    """Return a duration as messages show it; no estimate is good to the second.

    >>> shown_duration(20), shown_duration(150), shown_duration(7_500), shown_duration(400_000)
    ('less than a minute', '3 minutes', '2.1 hours', '4.6 days')
    """
    if seconds < 60:
        return "less than a minute"
    if seconds < 5_400:
        return f"{math.ceil(seconds / 60):,} minutes"
    return f"{seconds / 3600:,.1f} hours" if seconds < 48 * 3600 else f"{seconds / 86_400:,.1f} days"


def refuse_full_disk(output_dir: Path, count: ParameterCount, resumes: bool = False) -> None:
    """Raise ScriptError if the disk cannot hold the checkpoints; those of a run to resume are there already."""
    problem = _disk_problem(count, output_dir, resumes)
    if problem:
        raise ScriptError(f"{shown_path(output_dir)}: {problem}")


def refuse_what_does_not_fit(
    base: BaseModel, config: Mapping[str, Any], device: Device, load: Load, training: MemoryEstimate, available: int
) -> None:
    """Raise ScriptError if training needs more than `available` even where the estimate is 10 % too high.

    The libraries are loaded by now, so their memory does not count.
    """
    if (training.total - training.libraries) * (1 - ESTIMATE_ERROR) > available:
        raise ScriptError(
            f"{base.name}: does not fit; training takes {shown_gib(training.total)}. "
            f"{_advice(config, device, load, available)}"
        )


def _disk_line(base: BaseModel, count: ParameterCount, output_dir: Path) -> str:
    base_bytes = 2 * (count.total - count.trainable)  # published in two bytes per weight
    download = "on disk" if base.folder is not None else f"{shown_bytes(base_bytes)} to download"
    return (
        f"  disk        base {download}; adapter {shown_bytes(4 * count.trainable)}, while training up to "
        f"{shown_bytes(_training_disk_bytes(count))}; free {shown_bytes(_free_disk_bytes(output_dir))}"
    )


def _disk_problem(count: ParameterCount, output_dir: Path, resumes: bool) -> str | None:
    checkpoints = list_checkpoints(output_dir / CHECKPOINTS_NAME) if resumes else []
    saved_bytes = sum(path.stat().st_size for folder in checkpoints for path in folder.iterdir())
    needed_bytes, free_bytes = _training_disk_bytes(count) - saved_bytes, _free_disk_bytes(output_dir)
    if free_bytes >= needed_bytes:
        return None
    return (
        f"checkpoints need {shown_gib(needed_bytes)} of disk space, {shown_gib(free_bytes)} are free; "
        "free some space, or choose another --saved-model-path"
    )


def _training_disk_bytes(count: ParameterCount) -> int:
    checkpoint_bytes = 3 * 4 * count.trainable  # in fp32: the adapter and at most two states of the optimizer
    return (KEPT_CHECKPOINTS + 1) * checkpoint_bytes  # and the one being written


def _free_disk_bytes(output_dir: Path) -> int:
    existing = next(folder for folder in (output_dir, *output_dir.absolute().parents) if folder.exists())
    return shutil.disk_usage(existing).free


def _advice(config: Mapping[str, Any], device: Device, load: Load, available: int) -> str:
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
