"""The folder of the trained model: whether it may be used, and what is written into it, in which order.

`training_settings.json` is written last: with it, the model is complete. A finished model is never overwritten, only moved
aside. Heavy libraries are imported inside functions, because the folder is checked before they load.
Checkpoints are left to `checkpoints`.
"""

from __future__ import annotations

import argparse
import dataclasses
import errno
import itertools
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from checkpoints import MODEL_CARD_NAME, library_versions
from processes import is_first_process, say

from common.conversation_data import PREPROCESSING_REPORT_NAME
from common.conversation_header import find_partners, partners_to_json
from common.model_folder import (
    ADAPTER_NAME,
    CHECKPOINTS_NAME,
    GENERATION_NAME,
    HELD_OUT_NAME,
    SETTINGS_FORMAT,
    SETTINGS_NAME,
    Sampling,
)
from common.outside_files import read_json
from common.private_files import exclusive_use, flush_folder, is_temporary, remove_abandoned_files, replacing
from common.script import ScriptError, refuse_undecodable, shown_path

if TYPE_CHECKING:
    from prepared_run import Run
    from transformers import TrainerState


FINAL_NAME = "final"  # inside checkpoints/: where the adapter is written first


def check_output_folder(options: argparse.Namespace) -> None:
    """Raise ScriptError early if the folder cannot be used."""
    folder: Path = options.model_dir
    if is_first_process():
        existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
        if not os.access(existing, os.W_OK | os.X_OK):  # said before a base of gigabytes is downloaded
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(folder))
        with exclusive_use(folder) if folder.is_dir() else nullcontext():
            check_folder(folder, options.resume, options.overwrite)


@contextmanager
def hold_output_folder(options: argparse.Namespace) -> Iterator[Callable[[Run], None]]:
    """Lock the output folder for this run; yield the function that starts writing into it.

    Only that function moves an older model aside. A run that is refused before leaves nothing behind.
    """
    folder: Path = options.model_dir
    if not is_first_process():
        yield lambda _run: None
        return
    with ExitStack() as stack:
        stack.enter_context(exclusive_use(folder))
        is_taken = check_folder(folder, options.resume, options.overwrite)  # again, now that it is locked

        def start_writing(run: Run) -> None:
            if is_taken:
                say(f"The previous contents of {shown_path(folder)} are now in {shown_path(move_aside(folder))}")
                stack.enter_context(exclusive_use(folder.resolve()))  # of a link, what it leads to
            remove_abandoned_files(folder)
            facts = {"data_sha256": run.data.sha256, "num_conversations": len(run.data.conversations)}
            write_json(folder / HELD_OUT_NAME, facts | dataclasses.asdict(run.held_out))

        yield start_writing


def check_folder(folder: Path, resume: bool, overwrite: bool) -> bool:
    """Return whether its contents must be moved aside; raise ScriptError if the folder cannot be used.

    A finished model loses what a kill left of its training; the temporary files of killed runs count as nothing.
    """
    refuse_undecodable(folder)
    if folder.is_symlink() and not folder.exists():
        raise ScriptError(f"{shown_path(folder)}: is a broken link; choose another folder")
    if folder.exists() and not folder.is_dir():
        raise ScriptError(f"{shown_path(folder)}: is a file, but a folder is needed; choose another path")
    is_finished = (folder / SETTINGS_NAME).is_file()
    is_begun = (folder / HELD_OUT_NAME).is_file() or (folder / CHECKPOINTS_NAME).is_dir()
    if is_finished and has_own_settings(folder):
        remove_leftovers(folder)
    if resume and is_finished:
        raise ScriptError(
            f"{shown_path(folder)}: this model is finished, there is nothing to resume; --overwrite trains again"
        )
    if resume and not is_begun:
        raise ScriptError(f"{shown_path(folder)}: there is no training to resume here; run again without --resume")
    if resume or not folder.exists():
        return False
    if is_finished and not overwrite:
        raise ScriptError(
            f"{shown_path(folder)}: there is a trained model already; pass --overwrite (it is moved aside) or "
            "another --saved-model-path"
        )
    if is_begun and not overwrite:
        raise ScriptError(
            f"{shown_path(folder)}: a training was interrupted here; pass --resume to continue it, or --overwrite to start again"
        )
    is_foreign = not is_finished and not is_begun and not all(map(is_temporary, folder.iterdir()))
    if is_foreign:
        raise ScriptError(
            f"{shown_path(folder)}: has files that this script did not write; choose another --saved-model-path"
        )
    return is_finished or is_begun


def has_own_settings(folder: Path) -> bool:
    """Tell whether the settings in `folder` are those of a training of this project."""
    try:
        return bool(read_json(folder / SETTINGS_NAME)["format"] == SETTINGS_FORMAT)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def remove_leftovers(folder: Path) -> None:
    """Delete what a kill in the last phase left beside a finished model: checkpoints and temporary files."""
    checkpoints_dir = folder / CHECKPOINTS_NAME
    if checkpoints_dir.is_dir() and not checkpoints_dir.is_symlink():
        shutil.rmtree(checkpoints_dir)
    remove_abandoned_files(folder)


def move_aside(folder: Path) -> Path:
    """Rename `folder` to `<name>.old-<time>`, with a number behind it where that is taken, and return that path.

    A linked folder is renamed where it lies: the link then leads to the new one.
    """
    folder = folder.resolve()
    wanted = folder.with_name(f"{folder.name}.old-{time.strftime('%Y%m%d-%H%M%S')}")
    names = (wanted.name if number == 1 else f"{wanted.name}-{number}" for number in itertools.count(1))
    aside = next(path for path in map(wanted.with_name, names) if not path.exists() and not path.is_symlink())
    try:
        folder.rename(aside)
    except OSError as error:
        if error.errno not in (errno.EBUSY, errno.EXDEV):
            raise
        raise ScriptError(  # a mount, or a layer of a container's disk
            f"{shown_path(folder)}: cannot be moved aside, it is a disk of its own; move its contents yourself, or choose "
            "another --saved-model-path"
        ) from None
    return aside


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write `content` to `path`, private and whole."""
    with replacing(path) as file:
        json.dump(content, file, ensure_ascii=False, indent=1)
        file.write("\n")


def finish_folder(
    folder: Path, model: Any, tokenizer: Any, generation_config: Mapping[str, Any], settings: Mapping[str, Any]
) -> int:
    """Write adapter, tokenizer and generation config, delete the checkpoints, write the settings; return the adapter's bytes."""
    final = folder / CHECKPOINTS_NAME / FINAL_NAME
    shutil.rmtree(final, ignore_errors=True)
    config = model.peft_config["default"]
    config.target_modules = sorted(config.target_modules)  # a set has no fixed order
    # Without save_embedding_layers=False, LoRA on the head also saves the base's head (0.5 GB for a 7B).
    model.save_pretrained(final, save_embedding_layers=False)
    tokenizer.save_pretrained(final)
    write_json(final / GENERATION_NAME, generation_config)
    for path in sorted(final.iterdir()):
        if path.name != MODEL_CARD_NAME:
            with path.open("rb") as file:
                os.fsync(file.fileno())
            os.replace(path, folder / path.name)
    flush_folder(folder)
    write_json(folder / SETTINGS_NAME, settings)
    remove_leftovers(folder)
    return (folder / ADAPTER_NAME).stat().st_size


def is_disk_full(error: Exception) -> bool:
    """Return whether `error` (of Python, torch or safetensors) comes from a full disk."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return True
    text = str(error)
    return any(sign in text for sign in ("No space left", "File too large", "PytorchStreamWriter failed"))


def make_generation_config(tokenizer: Any) -> dict[str, Any]:
    """Return how replies are sampled and where they end."""
    from common.chat_format import find_end_of_turn_id

    end_id = find_end_of_turn_id(tokenizer)
    pad_id = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else end_id
    return Sampling().to_generation_config() | {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": end_id,
        "pad_token_id": pad_id,
    }


def make_report(
    run: Run, model: Any, state: TrainerState, log_rows: Sequence[Mapping[str, Any]], loading_bytes: int | None
) -> dict[str, Any]:
    """Return the measurements of a finished run; `log_rows` are the rows of its training log.

    `loading_bytes`: the GPU's peak while the base was loaded, None without a GPU. The peak of training counts from there.
    """
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
        "loading_peak_memory_bytes": loading_bytes,
        "device": run.device.name,
    }
    if best_step is not None:
        report["validation"] = {
            name: {"loss": row["held_out_loss"], "bits_per_char": row["held_out_bits_per_char"]}
            for name, row in (("base", evaluations[0]), ("tuned", evaluations[best_step]))
        }
    return report


def make_settings(run: Run, model: Any) -> dict[str, Any]:
    """Return how the model was trained: what the chat and the style report need, and what a reader may ask."""
    from common.compute_device import NF4

    recipe = run.recipe
    return {
        "format": SETTINGS_FORMAT,
        "base_model_id": run.base.name if run.base.revision else str(run.base.folder),
        "base_revision": run.base.revision,
        "base_fingerprint": run.facts["base_fingerprint"],
        "path_to_data": str(run.options.data_path),
        "data_sha256": run.data.sha256,
        "corrections": None
        if run.corrections is None
        else {
            "num_corrections": len(run.corrections.conversations),
            "weight": run.facts["correction_weight"],
            "sha256": run.corrections.sha256,
        },
        "max_length": recipe.max_length,
        "quantization": NF4 if run.device.is_quantized else {},
        "lora": {
            "rank": recipe.rank,
            "alpha": recipe.alpha,
            "dropout": recipe.dropout,
            "target_modules": sorted(model.peft_config["default"].target_modules),
        },
        "context": run.facts["context"],
        "partners": partners_to_json(find_partners(run.data.conversations)),
        "training": dataclasses.asdict(recipe) | {name: run.facts[name] for name in ("context", "epochs")},
        "learning_rate_trials": run.facts.get("learning_rate_trials"),
        "seed": run.options.seed,
        "person": find_person(run.options.data_path),
        "versions": library_versions(),
        "finished_at": datetime.now().astimezone().isoformat(timespec="seconds"),
    }


def find_person(data_path: Path) -> str | None:
    """Return the (first) name of the imitated person from stage 1's report beside the data, or None."""
    try:
        names = read_json(data_path.parent / PREPROCESSING_REPORT_NAME)["person"]
        return str(names[0])
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        return None
