"""Would this run fit, and how long would it take: memory, tokens, steps, time and disk against this machine.

It answers `--check` and refuses a run that would take days, both before any weight is loaded.
It leaves the memory itself to memory_estimate, and finding the base to base_model_files.
"""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil
import torch
from base_model_files import BaseModel, fetch_config
from memory_estimate import GIB, NF4_BYTES, Load, MemoryEstimate, build_empty_model, estimate_memory
from qlora_model import Device, ParameterCount, find_lora_targets, read_model_config, unused_gpu_notice
from recipes import Recipe
from training_progress import shown_bytes, shown_seconds
from training_script import PROJECT_ROOT, ScriptError, shown_path, shown_python
from transformers import AutoConfig, PreTrainedConfig

STAGE_2_PATH = PROJECT_ROOT / "src/training/fine_tuning_model.py"
BASE_MODELS_PATH = Path(__file__).with_name("base_models.json")

# Multiplications and additions for each weight and token: forward, once more for the checkpoints, and backward for the
# activations only, because the weights are frozen.
OPERATIONS_PER_WEIGHT = 6
# Which share of a plain matrix product's speed a training step reaches. CPU: measured on two cores with the model of
# tests/benchmarks; GPU: from published QLoRA rates of 7B models (2,300 tokens/s on an A100), not measured by us.
REACHED_SHARE = {"cpu": 0.5, "cuda": 0.35, "mps": 0.3}
RATE_SIZE = 1024  # of the square matrices that are multiplied to measure the machine
RATE_SECONDS = 0.3

MAX_CPU_SECONDS = 24 * 3600  # without a GPU, what is estimated to take longer is not begun

# Nominal sizes of cards. A twentieth of each is never free: the driver's part, and the screen's.
CARD_GIB = (4, 6, 8, 10, 12, 16, 24, 32, 48, 80)
USABLE_SHARE = 0.95

KEPT_CHECKPOINTS = 3  # the newest two and the best
FALLBACK_LENGTHS = (1024, 512)


@dataclass(frozen=True)
class KnownBase:
    """A base model of the README's table: its shape is known without asking anybody."""

    name: str
    languages: str
    license: str
    source: str
    config: PreTrainedConfig


@dataclass(frozen=True)
class Work:
    """What there is to train on, when the data and the tokenizer are at hand."""

    epoch_tokens: int
    epoch_supervised_tokens: int
    fill: float
    num_steps: int
    num_epochs: int
    row_tokens: int  # of the longest row
    supervised_share: float  # of the row that has most


def known_bases() -> list[KnownBase]:
    """Return the bases whose shapes ship with the project, smallest first."""
    entries = json.loads(BASE_MODELS_PATH.read_text(encoding="utf-8"))["bases"]
    return [
        KnownBase(
            entry["id"], entry["languages"], entry["license"], entry["source"], AutoConfig.for_model(**entry["config"])
        )
        for entry in entries
    ]


def find_config(base: BaseModel) -> PreTrainedConfig:
    """Return the config of `base`: from its folder, from what ships with the project, or from the hub.

    Raises BaseModelError.
    """
    if base.folder is not None:
        return read_model_config(base.folder)
    for known in known_bases():
        if known.name == base.name:
            return known.config
    return AutoConfig.for_model(**fetch_config(base.name))


def measure_work(material: Any) -> Work:
    """Sum up what `training_material.prepare_material` prepared, and find its largest row."""
    supervised = [sum(piece) for piece in material.pieces["is_supervised"]]
    rows = [
        (sum(material.lengths[piece] for piece in pack), sum(supervised[piece] for piece in pack))
        for pack in material.schedule.packs
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
    """Return what one step of `recipe` puts on the device; without data, rows are as long as allowed."""
    load = Load(
        row_tokens=recipe.max_length,
        rank=recipe.rank,
        alpha=recipe.alpha,
        dropout=recipe.dropout,
        adapter_dtype=getattr(torch, recipe.adapter_dtype),
    )
    if recipe.padded_rows_per_batch is not None:
        return replace(load, rows=recipe.padded_rows_per_batch, supervised_share=1.0)
    if recipe.train_on == "everyone":
        load = replace(load, supervised_share=1.0)
    if work is not None:
        load = replace(load, row_tokens=work.row_tokens, supervised_share=work.supervised_share)
    return load


def check_run(base: BaseModel, device: Device, recipe: Recipe, work: Work | None, output_dir: Path) -> list[str]:
    """Return the lines of `--check`: what the run would need and what there is. Raises BaseModelError."""
    config = find_config(base)
    load = load_of(recipe, work)
    count, training, chat = estimate_memory(config, device, load)
    available = available_bytes(device)
    lines = [
        f"Check of {base.name} on {device.name}, {_shown_dtype(device)}; nothing is loaded or downloaded",
        f"  parameters  {count.total:,}, of them trained {count.trainable:,} ({count.trainable_percent:.4f} %)",
        *_work_lines(config, device, work),
        *_disk_lines(base, count, output_dir),
        f"  memory      training {_shown_gib(training.total)}: {_shown_parts(training)}",
        f"              chat     {_shown_gib(chat.total)}: {_shown_parts(chat)}",
        f"              (rows of {load.row_tokens:,} tokens; a chat that remembers as many)",
        f"  there are   {_shown_gib(available)} free on {device.name}",
    ]
    notice = unused_gpu_notice()
    if notice:
        lines.append(f"  note        {notice}")
    if training.total <= available:
        return [*lines, "  It fits."]
    return [*lines, f"  It does not fit. {_advice(config, device, load, available)}"]


def refuse_what_takes_days(
    base: BaseModel, config: PreTrainedConfig, device: Device, work: Work, operations_per_second: float | None = None
) -> None:
    """Raise ScriptError when this machine, without a GPU, would need more than a day; name a base that fits it.

    The machine's speed is measured when it is not given.
    """
    if device.kind != "cpu":
        return
    operations_per_second = operations_per_second or measure_rate(device)
    seconds = _estimate_seconds(config, device, work, operations_per_second)
    if seconds <= MAX_CPU_SECONDS:
        return
    feasible = [
        known
        for known in known_bases()
        if _estimate_seconds(known.config, device, work, operations_per_second) <= MAX_CPU_SECONDS
    ]
    if feasible:
        smaller = (
            "a smaller base needs less than a day:\n"
            f"  {shown_python()} {shown_path(STAGE_2_PATH)} --base-model-id {feasible[-1].name}"
        )
    else:
        smaller = "give it less data: even the smallest base known here would take days"
    notice = unused_gpu_notice()
    raise ScriptError(
        f"{base.name}: would take about {shown_seconds(seconds)} on this processor, there is no GPU to use; "
        f"pass --device cpu to do it all the same, or {smaller}" + (f"\n  {notice}" if notice else "")
    )


def available_bytes(device: Device) -> int:
    """Return the free memory of the device."""
    if device.kind == "cuda":
        free_bytes, _total = torch.cuda.mem_get_info(device.name)
        return free_bytes
    if device.kind == "mps":
        return int(torch.mps.recommended_max_memory())
    return int(psutil.virtual_memory().available)


def measure_rate(device: Device) -> float:
    """Return how many multiplications and additions the device does a second in plain matrix products, in 0.3 s."""
    left, right = (torch.randn(RATE_SIZE, RATE_SIZE, device=device.name, dtype=device.dtype) for _ in range(2))
    (left @ right)[0, 0].item()  # the first call sets things up
    started_at, cpu_started_at = time.perf_counter(), time.process_time()
    num_products = 0
    while time.perf_counter() - started_at < RATE_SECONDS:
        (left @ right)[0, 0].item()  # waits for the device
        num_products += 1
    seconds = time.perf_counter() - started_at
    if device.kind == "cpu":
        # What others compute at this moment does not count.
        seconds = min(seconds, (time.process_time() - cpu_started_at) / torch.get_num_threads())
    return 2 * RATE_SIZE**3 * num_products / seconds


def estimate_training_seconds(config: PreTrainedConfig, device: Device, work: Work) -> float:
    """Return about how long all epochs take on this machine."""
    return _estimate_seconds(config, device, work, measure_rate(device))


def _estimate_seconds(config: PreTrainedConfig, device: Device, work: Work, operations_per_second: float) -> float:
    in_layers, in_head = _count_multiplied_weights(config)
    operations = OPERATIONS_PER_WEIGHT * (in_layers * work.epoch_tokens + in_head * work.epoch_supervised_tokens)
    return work.num_epochs * operations / (operations_per_second * REACHED_SHARE[device.kind])


def _count_multiplied_weights(config: PreTrainedConfig) -> tuple[int, int]:
    """Return how many weights each token is multiplied with in the layers, and in the head if it is supervised."""
    model = build_empty_model(config, torch.bfloat16)
    targets = set(find_lora_targets(model))
    head = model.get_output_embeddings()
    in_layers = sum(
        module.weight.numel()
        for path, module in model.named_modules()
        if path.split(".")[-1] in targets and module is not head
    )
    return in_layers, head.weight.numel()


def _work_lines(config: PreTrainedConfig, device: Device, work: Work | None) -> list[str]:
    if work is None:
        return ["  tokens      not known (that takes the data and the base's tokenizer on disk)"]
    supervised_percent = 100 * work.epoch_supervised_tokens / work.epoch_tokens
    seconds = estimate_training_seconds(config, device, work)
    return [
        f"  tokens      {work.epoch_tokens:,} an epoch, {work.epoch_supervised_tokens:,} learnt from "
        f"({supervised_percent:.0f} %), rows {100 * work.fill:.0f} % full",
        f"  steps       {work.num_steps:,} in up to {work.num_epochs} epochs",
        f"  time        about {shown_seconds(seconds)} for all of them (a rough guess, from a matrix product here)",
    ]


def _disk_lines(base: BaseModel, count: ParameterCount, output_dir: Path) -> list[str]:
    base_bytes = 2 * (count.total - count.trainable)  # published in two bytes a weight
    adapter_bytes = 4 * count.trainable
    checkpoint_bytes = KEPT_CHECKPOINTS * 3 * adapter_bytes  # with two states of the optimizer, at most
    place = next(folder for folder in (output_dir, *output_dir.parents) if folder.exists())
    download = "on disk" if base.folder is not None else f"{shown_bytes(base_bytes)} to download"
    return [
        f"  disk        base {download}; adapter {shown_bytes(adapter_bytes)}, while training up to "
        f"{shown_bytes(adapter_bytes + checkpoint_bytes)}; free {shown_bytes(shutil.disk_usage(place).free)}"
    ]


def _advice(config: PreTrainedConfig, device: Device, load: Load, available: int) -> str:
    """Return the smallest change that makes the run fit, tried out by the same estimate."""
    for length in FALLBACK_LENGTHS:
        if length < load.row_tokens:
            training = estimate_memory(config, device, replace(load, rows=1, row_tokens=length))[1]
            if training.total <= available:
                return f"Pass --max-length {length} (then {_shown_gib(training.total)})."
    for known in reversed(known_bases()):
        if _num_weights(known.config) >= _num_weights(config) or _num_weights(known.config) * NF4_BYTES > available:
            continue
        training = estimate_memory(known.config, device, load)[1]
        if training.total <= available:
            return f"Pass --base-model-id {known.name} (then {_shown_gib(training.total)})."
    return "No base known here does; free some memory."


def _num_weights(config: PreTrainedConfig) -> int:
    return sum(parameter.numel() for parameter in build_empty_model(config, torch.bfloat16).parameters())


def smallest_card_gib(needed_bytes: int) -> int | None:
    """Return the nominal size of the smallest card that holds `needed_bytes`, None when there is none."""
    return next((size for size in CARD_GIB if needed_bytes <= USABLE_SHARE * size * GIB), None)


def make_base_table() -> str:
    """Return the README's table of bases as Markdown: every number by the same estimate as `--check`.

    Rows of 2,048 and of 512 tokens, a third of them supervised, fp32 adapters; a chat that remembers as many tokens.
    """
    gpu = Device("cuda:0", torch.bfloat16, is_quantized=True)
    lines = [
        "| base model | languages | licence | parameters | download | training, 2,048 / 512 tokens a row | chat | card from |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for known in known_bases():
        count, training, chat = estimate_memory(known.config, gpu, Load())
        short_rows = estimate_memory(known.config, gpu, Load(row_tokens=512))[1]
        num_parameters = count.total - count.trainable
        lines.append(
            f"| [{known.name}]({known.source}) | {known.languages} | {known.license} | {num_parameters / 1e9:.2f} B "
            f"| {2 * num_parameters / 1e9:.1f} GB | {_shown_gib(training.total)} / {_shown_gib(short_rows.total)} "
            f"| {_shown_gib(chat.total)} | {smallest_card_gib(training.total)} GB |"
        )
    return "\n".join(lines)


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


def _shown_gib(num_bytes: int) -> str:
    return f"{math.ceil(100 * num_bytes / GIB) / 100:.2f} GiB"


def _shown_dtype(device: Device) -> str:
    rest = str(device.dtype).removeprefix("torch.")
    return f"4-bit weights, the rest {rest}" if device.is_quantized else rest


if __name__ == "__main__":
    print(make_base_table())
