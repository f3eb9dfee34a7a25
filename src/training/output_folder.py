"""The folder of the trained model: whose it is, whether it is finished, what is written into it and in which order.

`training_settings.json` is written last: where it is, the model is complete. A finished model is never overwritten,
only moved aside. Heavy libraries load in the functions that need them: the folder is checked before any of them.
It leaves checkpoints to `checkpoints`.
"""

from __future__ import annotations

import argparse
import dataclasses
import errno
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from checkpoints import library_versions
from processes import is_first_process, say

from common.model_folder import (
    ADAPTER_NAME,
    CHECKPOINTS_NAME,
    GENERATION_NAME,
    HELD_OUT_NAME,
    SETTINGS_FORMAT,
    SETTINGS_NAME,
    Sampling,
)
from common.script import (
    ScriptError,
    exclusive_use,
    flush_folder,
    remove_abandoned_files,
    replacing,
    shown_path,
)

if TYPE_CHECKING:
    from prepared_run import Run
    from transformers import TrainerState


FINAL_NAME = "final"  # inside the checkpoints: the adapter while it is written
NOT_SHIPPED = ("README.md", "training_args.bin")  # a card full of blanks, and a pickle with paths of this machine


def check_output_folder(options: argparse.Namespace) -> None:
    """Refuse a folder that cannot be written to, before anything takes long."""
    folder: Path = options.model_dir
    if is_first_process():
        with exclusive_use(folder, "training") if folder.is_dir() else nullcontext():
            check_folder(folder, options.resume, options.overwrite)


@contextmanager
def hold_output_folder(options: argparse.Namespace) -> Iterator[Callable[[Run], None]]:
    """Hold the output folder for this run; give the function that begins to write into it.

    A run that is refused before that leaves nothing behind; an older model moves aside only then.
    """
    folder: Path = options.model_dir
    if not is_first_process():
        yield lambda _run: None
        return
    with ExitStack() as stack:
        stack.callback(remove_if_empty, folder)
        stack.enter_context(exclusive_use(folder, "training"))
        is_taken = check_folder(folder, options.resume, options.overwrite)  # again: now nobody else can change it

        def start_writing(run: Run) -> None:
            if is_taken:
                say(f"What was in {shown_path(folder)} is now in {shown_path(move_aside(folder))}")
                stack.enter_context(exclusive_use(folder, "training"))
            facts = {"data_sha256": run.data.sha256, "num_conversations": len(run.data.conversations)}
            write_json(folder / HELD_OUT_NAME, facts | dataclasses.asdict(run.held_out))

        yield start_writing


def check_folder(folder: Path, resume: bool, overwrite: bool) -> bool:
    """Return whether something must move aside before training; raise ScriptError when the folder cannot be used."""
    if folder.is_symlink() and not folder.exists():
        raise ScriptError(f"{shown_path(folder)}: is a link to nothing; choose another folder")
    if folder.exists() and not folder.is_dir():
        raise ScriptError(f"{shown_path(folder)}: is a file, a folder is needed; choose another path")
    is_finished = (folder / SETTINGS_NAME).is_file()
    is_begun = (folder / HELD_OUT_NAME).is_file() or (folder / CHECKPOINTS_NAME).is_dir()
    if resume and is_finished:
        raise ScriptError(f"{shown_path(folder)}: this model is finished, nothing to resume; --overwrite trains anew")
    if resume and not is_begun:
        raise ScriptError(f"{shown_path(folder)}: no training to resume here; run again without --resume")
    if resume or not folder.exists():
        return False
    if is_finished and not overwrite:
        raise ScriptError(
            f"{shown_path(folder)}: a trained model is already there; pass --overwrite (it is moved aside), "
            "or another --saved-model-path"
        )
    if is_begun and not overwrite:
        raise ScriptError(
            f"{shown_path(folder)}: a training was interrupted here; pass --resume to go on, or --overwrite to start anew"
        )
    is_foreign = not is_finished and not is_begun and any(folder.iterdir())
    if is_foreign:
        raise ScriptError(f"{shown_path(folder)}: holds files that are not ours; choose another --saved-model-path")
    return is_finished or is_begun


def move_aside(folder: Path) -> Path:
    """Rename `folder` to `<name>.old-<time>` and return that path."""
    aside = folder.with_name(f"{folder.name}.old-{time.strftime('%Y%m%d-%H%M%S')}")
    folder.rename(aside)
    return aside


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write `content` to `path`, private and whole."""
    with replacing(path) as file:
        json.dump(content, file, ensure_ascii=False, indent=1)
        file.write("\n")


def finish_folder(
    folder: Path, model: Any, tokenizer: Any, generation_config: Mapping[str, Any], settings: Mapping[str, Any]
) -> int:
    """Write adapter, tokenizer and generation config, remove the checkpoints, write the settings; return bytes."""
    final = folder / CHECKPOINTS_NAME / FINAL_NAME
    shutil.rmtree(final, ignore_errors=True)
    config = model.peft_config["default"]
    config.target_modules = sorted(config.target_modules)  # a set would be written in another order each time
    # Without save_embedding_layers=False, LoRA on the head drags the base's whole head along (0.5 GB on a 7B).
    model.save_pretrained(final, save_embedding_layers=False)
    tokenizer.save_pretrained(final)
    write_json(final / GENERATION_NAME, generation_config)
    for path in sorted(final.iterdir()):
        if path.name not in NOT_SHIPPED:
            with path.open("rb") as file:
                os.fsync(file.fileno())
            os.replace(path, folder / path.name)
    remove_abandoned_files(folder)
    flush_folder(folder)
    write_json(folder / SETTINGS_NAME, settings)
    shutil.rmtree(folder / CHECKPOINTS_NAME)
    return (folder / ADAPTER_NAME).stat().st_size


def remove_if_empty(folder: Path) -> None:
    """Remove `folder` when nothing was written into it."""
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


def is_disk_full(error: Exception) -> bool:
    """Tell whether `error`, of Python, torch or safetensors, comes from a file that could not grow."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return True
    text = str(error)
    return any(sign in text for sign in ("No space left", "File too large", "PytorchStreamWriter failed"))


def make_generation_config(tokenizer: Any) -> dict[str, Any]:
    """Return how replies are drawn and where they end."""
    from common.chat_format import find_end_of_turn_id

    end_id = find_end_of_turn_id(tokenizer)
    pad_id = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else end_id
    return Sampling().to_generation_config() | {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": end_id,
        "pad_token_id": pad_id,
    }


def make_report(run: Run, model: Any, state: TrainerState, log_rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the measured numbers of a finished run; `log_rows` are those of its training log."""
    from qlora_model import count_parameters
    from training_progress import peak_memory_bytes

    material = run.material
    evaluations = {row["step"]: row for row in log_rows if "held_out_loss" in row}
    best_step = state.best_global_step if evaluations else None
    steps = [row for row in log_rows if "loss" in row]
    step_seconds = sum(row["seconds"] for row in steps)
    count = count_parameters(model)
    report: dict[str, Any] = {
        "tokens_per_epoch": material.num_tokens,
        "supervised_tokens_per_epoch": material.num_supervised_tokens,
        "rows_filled": round(material.fill, 4),
        "steps": state.global_step,
        "epochs": round(material.schedule.epoch_at(state.global_step), 4),
        "best_step": best_step,
        "trainable_parameters": count.trainable,
        "trainable_percent": round(count.trainable_percent, 4),
        "seconds": round(sum(row["seconds"] for row in log_rows), 1),
        "seconds_in_steps": round(step_seconds, 1),
        "tokens_per_second": round(sum(row["tokens"] for row in steps) / step_seconds, 1),
        "peak_memory_bytes": peak_memory_bytes(),
        "device": run.device.name,
    }
    if best_step is not None:
        report["validation"] = {
            name: {"loss": row["held_out_loss"], "bits_per_char": row["held_out_bits_per_char"]}
            for name, row in (("base", evaluations[0]), ("tuned", evaluations[best_step]))
        }
    return report


def make_settings(run: Run, model: Any) -> dict[str, Any]:
    """Return what the chat, the report and a later reader must know of how the model was trained."""
    from common.compute_device import NF4

    recipe = run.recipe
    return {
        "format": SETTINGS_FORMAT,
        "base_model_id": run.base.name if run.base.revision else str(run.base.folder),
        "base_revision": run.base.revision,
        "base_fingerprint": run.facts["base_fingerprint"],
        "path_to_data": str(run.options.data_path),
        "data_sha256": run.data.sha256,
        "max_length": recipe.max_length,
        "quantization": NF4 if run.device.is_quantized else {},
        "lora": {
            "rank": recipe.rank,
            "alpha": recipe.alpha,
            "dropout": recipe.dropout,
            "target_modules": sorted(model.peft_config["default"].target_modules),
        },
        "recipe": "default",
        "training": dataclasses.asdict(recipe),
        "seed": run.options.seed,
        "person": find_person(run.options.data_path),
        "versions": library_versions(),
        "finished_at": datetime.now().astimezone().isoformat(timespec="seconds"),
    }


def find_person(data_path: Path) -> str | None:
    """Return the (first) name of the imitated person from stage 1's report beside the data, when there is one."""
    try:
        names = json.loads((data_path.parent / "preprocessing_report.json").read_text(encoding="utf-8"))["person"]
        return str(names[0])
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        return None
