"""Does a run fit this machine, and how long does it take: memory, tokens, steps, time and disk.

It answers `--check`, refuses a run that does not fit or takes days, and chooses gradient checkpointing, all before any
weight is loaded. The memory estimate itself is in `memory_estimate`.
"""

from __future__ import annotations

import argparse
import math
import shlex
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import psutil
import torch
from checkpoints import NUM_KEPT, list_checkpoints, read_run_facts
from known_bases import find_config, known_bases
from memory_estimate import GIB, NF4_BYTES, Load, MemoryEstimate, build_empty_model, estimate_memory, shown_gib
from prepared_run import Material, Run, prepare_run, shorten_to_context
from processes import local_world_size, say, warn, world_size
from qlora_model import ParameterCount, find_lora_targets, read_model_config
from recipes import FUSED_OPTIMIZER, OPTIMIZER_BYTES, PAGED_OPTIMIZER, Recipe, choose_epochs, choose_optimizer
from tqdm import tqdm
from training_options import flags_without
from training_progress import shown_bytes
from transformers import PreTrainedConfig

from common.base_model_files import BaseModel, check_base_folder, find_base
from common.compute_device import Device, choose_training_device, unused_gpu_notice
from common.conversation_data import Conversation, TrainingData
from common.model_folder import CHECKPOINTS_NAME
from common.script import PROJECT_ROOT, ScriptError, printable, shown_path, shown_python

STAGE_2_PATH = PROJECT_ROOT / "src/training/fine_tuning_model.py"

# Per weight and token: 2 forward, 2 forward again with gradient checkpointing (a third too much without it), and 2 backward
# (for the activations only: the weights are frozen).
OPERATIONS_PER_WEIGHT = 6
# The share of a plain matrix product's speed that a training step reaches. CPU: measured on two cores with the model of
# tests/benchmarks. GPU: from published QLoRA rates of 7B models (2,300 tokens/s on an A100), not measured by us.
REACHED_SHARE = {"cpu": 0.5, "cuda": 0.35, "mps": 0.3}
RATE_SIZE = 1024  # rows and columns of the matrices that measure the machine
RATE_SECONDS = 0.3

MAX_CPU_SECONDS = 24 * 3600  # a longer run on a processor is refused

ESTIMATE_ERROR = 0.1  # the memory estimate is within 10 %
# Activations are kept if training takes at most this share of the free memory. Main memory is shared with other programs.
SHARE_FOR_KEEPING = {"cuda": 1 - ESTIMATE_ERROR, "mps": 0.5, "cpu": 0.5}

KEPT_CHECKPOINTS = NUM_KEPT + 1  # and the best one
CHARS_PER_TOKEN = 3  # a guess while there is no tokenizer: Hebrew has about 2.5, English 4
FALLBACK_LENGTHS = (1024, 512)


@dataclass(frozen=True)
class Work:
    """How much there is to train on."""

    epoch_tokens: int
    epoch_supervised_tokens: int
    fill: float
    num_steps: int
    num_epochs: int
    row_tokens: int  # of the longest row
    supervised_share: float  # of the row that has most


def check_feasibility(options: argparse.Namespace, data: TrainingData | None) -> list[str]:
    """Return the lines of `--check`; without data, or without the base's tokenizer, some figures are not known."""
    device = choose_training_device(options.device)
    base = find_base(options.base_model_id, options.start_dir)
    work = None
    if base.folder is not None and data is not None:
        check_base_folder(base.folder)
        run = prepare_run(options, data, base)
        recipe, work = run.recipe, measure_work(run.material)
    else:
        recipe = shorten_to_context(options.recipe, find_config(base))
    keeping, resumes = options.activation_checkpointing, options.resume
    lines = check_run(base, device, recipe, work, options.model_dir, keeping, resumes)
    if data is not None and options.device == "auto":
        try:
            work = work or guess_work(data.conversations, recipe)
            refuse_what_takes_days(base, find_config(base), device, work, flags_without("--check", "--resume"))
        except ScriptError as error:
            lines.append(f"  But {error}")
    return lines


def refuse_hopeless_download(options: argparse.Namespace, data: TrainingData, base: BaseModel) -> None:
    """Raise ScriptError before the download of a base that this machine cannot train within a day."""
    if options.device == "auto":
        config = find_config(base)
        work = guess_work(data.conversations, shorten_to_context(options.recipe, config))
        refuse_what_takes_days(base, config, choose_training_device(), work, flags_without("--resume"))


def refuse_hopeless_run(run: Run) -> None:
    """Raise ScriptError before a base is loaded that this machine cannot train within a day."""
    notice = unused_gpu_notice()
    if notice:
        warn(notice)
    if run.options.device == "auto":
        work, flags = measure_work(run.material), flags_without("--resume")
        refuse_what_takes_days(run.base, find_config(run.base), run.device, work, flags)


def choose_by_memory(run: Run, checkpoint: Path | None) -> tuple[bool, str]:
    """Return whether to use gradient checkpointing, and the optimizer; print why.

    Raises ScriptError if training does not fit either way. A resumed run keeps the optimizer of `checkpoint`.
    """
    checkpointing = run.options.activation_checkpointing
    is_cuda = run.device.kind == "cuda"
    assert run.base.folder is not None
    config, load = read_model_config(run.base.folder), load_of(run.recipe, measure_work(run.material))
    available = available_bytes(run.device)
    load, count, training, _chat = plan_memory(config, run.device, load, available, checkpointing)
    optimizer = FUSED_OPTIMIZER
    if checkpoint is not None:  # the states of one are not those of the other
        former = PAGED_OPTIMIZER if is_cuda else FUSED_OPTIMIZER  # of checkpoints that do not name it
        optimizer = read_run_facts(checkpoint).get("optimizer", former)
    elif is_cuda and world_size() > 1:
        optimizer = PAGED_OPTIMIZER  # two cards with different room would choose differently
    elif is_cuda:
        free_bytes = int(SHARE_FOR_KEEPING["cuda"] * available) - training.total
        optimizer = choose_optimizer(count.trainable, free_bytes)
    training = replace(training, optimizer=math.ceil(count.trainable * OPTIMIZER_BYTES[optimizer]))
    say(
        f"Memory: training takes about {shown_gib(training.total)}, {run.device.name} has {shown_gib(available)} free\n"
        f"  {shown_keeping(load)}"
    )
    refuse_what_does_not_fit(run.base, config, run.device, load, training, available)
    return load.gradient_checkpointing, optimizer


def guess_work(conversations: Sequence[Conversation], recipe: Recipe) -> Work:
    """Estimate the work from the number of characters, without a tokenizer."""
    num_chars = sum(len(message["content"]) for talk in conversations for message in talk.messages)
    tokens = num_chars // CHARS_PER_TOKEN
    num_epochs = choose_epochs(recipe, sum(talk.num_replies for talk in conversations))
    return Work(tokens, tokens // 2, 1.0, 0, num_epochs, recipe.max_length, 0.5)


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
    )


def load_of(recipe: Recipe, work: Work | None) -> Load:
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
        load = replace(load, row_tokens=work.row_tokens, supervised_share=work.supervised_share)
    return load


def plan_memory(
    config: PreTrainedConfig, device: Device, load: Load, available: int, checkpointing: str = "auto"
) -> tuple[Load, ParameterCount, MemoryEstimate, MemoryEstimate]:
    """Choose gradient checkpointing: `checkpointing` is "on", "off", or "auto", which uses it only where memory is short.

    Returns `load` with the choice, the number of parameters, and the memory of training and of a chat.
    """
    if checkpointing != "on":
        kept = replace(load, gradient_checkpointing=False)
        count, training, chat = estimate_memory(config, device, kept)
        if checkpointing == "off" or training.total <= SHARE_FOR_KEEPING[device.kind] * available:
            return kept, count, training, chat
    return load, *estimate_memory(config, device, load)


def check_run(
    base: BaseModel,
    device: Device,
    recipe: Recipe,
    work: Work | None,
    output_dir: Path,
    checkpointing: str = "auto",
    resumes: bool = False,
) -> list[str]:
    """Return the lines of `--check`: what the run needs, and what the machine has. Raises BaseModelError."""
    config = find_config(base)
    available = available_bytes(device)
    load, count, training, chat = plan_memory(config, device, load_of(recipe, work), available, checkpointing)
    lines = [
        f"Check of {base.name} on {device.name}, {_shown_dtype(device)} (nothing is loaded or downloaded)",
        f"  parameters  {count.total:,}; trained: {count.trainable:,} ({count.trainable_percent:.4f} %)",
        *_work_lines(config, device, work),
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
    problems = [] if training.total <= available else [_advice(config, device, load, available)]
    disk_problem = _disk_problem(count, output_dir, resumes)
    if disk_problem:
        problems.append(disk_problem)
    return [*lines, *([f"  It does not fit. {problem}" for problem in problems] or ["  It fits."])]


def refuse_what_takes_days(
    base: BaseModel,
    config: PreTrainedConfig,
    device: Device,
    work: Work,
    flags: Sequence[str] = (),
    operations_per_second: float | None = None,
) -> None:
    """Raise ScriptError if training on this processor would take more than a day; name a base that takes less.

    `flags` are those that the user gave: the command to try instead has them, too. The machine's speed is measured unless
    it is given.
    """
    if device.kind != "cpu":
        return
    operations_per_second = operations_per_second or measure_rate(device)
    seconds = estimate_training_seconds(config, device, work, operations_per_second)
    if seconds <= MAX_CPU_SECONDS:
        return
    feasible = [
        known
        for known in known_bases()
        if estimate_training_seconds(known.config, device, work, operations_per_second) <= MAX_CPU_SECONDS
    ]
    if feasible:
        # The last --base-model-id counts.
        command = [shown_python(), shown_path(STAGE_2_PATH), *flags, "--base-model-id", feasible[-1].name]
        smaller = f"use a smaller base, which takes less than a day:\n  {printable(shlex.join(command))}"
    else:
        smaller = "give it less data: even the smallest base of the README would take days"
    notice = unused_gpu_notice()
    raise ScriptError(
        f"{base.name}: would take about {tqdm.format_interval(seconds)} on this processor, and there is no usable GPU; "
        f"pass --device cpu to train all the same, or {smaller}" + (f"\n  {notice}" if notice else "")
    )


def shown_keeping(load: Load) -> str:
    """Return the line about gradient checkpointing, with the flag that asks for the same."""
    if load.gradient_checkpointing:
        return "gradient checkpointing: less memory, more time (--activation-checkpointing on)"
    return "no gradient checkpointing: activations are kept (--activation-checkpointing off)"


def available_bytes(device: Device) -> int:
    """Return the free memory of the device; several processes on one processor share it equally."""
    if device.kind == "cuda":
        free_bytes, _total = torch.cuda.mem_get_info(device.name)
        return free_bytes
    if device.kind == "mps":
        return int(torch.mps.recommended_max_memory())
    return int(psutil.virtual_memory().available) // local_world_size()


def measure_rate(device: Device) -> float:
    """Return how many operations per second the device reaches in plain matrix products; takes 0.3 s."""
    left, right = (torch.randn(RATE_SIZE, RATE_SIZE, device=device.name, dtype=device.dtype) for _ in range(2))
    (left @ right)[0, 0].item()  # the first call is slower
    started_at, cpu_started_at = time.perf_counter(), time.process_time()
    num_products = 0
    while time.perf_counter() - started_at < RATE_SECONDS:
        (left @ right)[0, 0].item()  # waits for the device
        num_products += 1
    seconds = time.perf_counter() - started_at
    if device.kind == "cpu":
        # The time that other programs take does not count.
        seconds = min(seconds, (time.process_time() - cpu_started_at) / torch.get_num_threads())
    return 2 * RATE_SIZE**3 * num_products / seconds


def estimate_training_seconds(
    config: PreTrainedConfig, device: Device, work: Work, operations_per_second: float
) -> float:
    """Estimate how long all epochs take."""
    in_layers, in_head = _count_multiplied_weights(config)
    operations = OPERATIONS_PER_WEIGHT * (in_layers * work.epoch_tokens + in_head * work.epoch_supervised_tokens)
    return work.num_epochs * operations / (operations_per_second * REACHED_SHARE[device.kind])


def _count_multiplied_weights(config: PreTrainedConfig) -> tuple[int, int]:
    """Return the number of weights in the layers (for each token), and in the head (for each supervised token)."""
    model = build_empty_model(config, torch.bfloat16)
    targets = set(find_lora_targets(model))
    head = model.get_output_embeddings()
    in_layers = sum(
        module.weight.numel()
        for path, module in model.named_modules()
        if {path, path.split(".")[-1]} & targets and module is not head
    )
    return in_layers, head.weight.numel()


def _work_lines(config: PreTrainedConfig, device: Device, work: Work | None) -> list[str]:
    if work is None:
        return ["  tokens      not known (needs the data, and the base's tokenizer on disk)"]
    supervised_percent = 100 * work.epoch_supervised_tokens / work.epoch_tokens
    seconds = estimate_training_seconds(config, device, work, measure_rate(device))
    return [
        f"  tokens      {work.epoch_tokens:,} per epoch, {work.epoch_supervised_tokens:,} of them supervised "
        f"({supervised_percent:.0f} %); rows are {100 * work.fill:.0f} % full",
        f"  steps       {work.num_steps:,} in up to {work.num_epochs} epochs",
        f"  time        about {tqdm.format_interval(seconds)} for all of them (a rough estimate from a matrix product on this machine)",
    ]


def refuse_full_disk(output_dir: Path, count: ParameterCount, resumes: bool = False) -> None:
    """Raise ScriptError if the disk cannot hold the checkpoints; those of a run to resume are there already."""
    problem = _disk_problem(count, output_dir, resumes)
    if problem:
        raise ScriptError(f"{shown_path(output_dir)}: {problem}")


def refuse_what_does_not_fit(
    base: BaseModel, config: PreTrainedConfig, device: Device, load: Load, training: MemoryEstimate, available: int
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


def _advice(config: PreTrainedConfig, device: Device, load: Load, available: int) -> str:
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
        if _num_weights(known.config) >= _num_weights(config) or _num_weights(known.config) * NF4_BYTES > available:
            continue
        training = estimate_memory(known.config, device, load)[1]
        if training.total <= available:
            return f"{and_more}Pass --base-model-id {known.name} (then {shown_gib(training.total)})."
    return "No base of the README fits; free some memory."


def _num_weights(config: PreTrainedConfig) -> int:
    return sum(parameter.numel() for parameter in build_empty_model(config, torch.bfloat16).parameters())


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
