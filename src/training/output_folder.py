"""The folder of the trained model: whose it is, whether it is finished, and filling it.

`training_settings.json` is written last: where it is, the model is complete. A finished model is never overwritten,
only moved aside. It leaves checkpoints to `checkpoints`.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from common.model_folder import ADAPTER_NAME, CHECKPOINTS_NAME, GENERATION_NAME, HELD_OUT_NAME, SETTINGS_NAME
from common.script import ScriptError, flush_folder, remove_abandoned_files, replacing, shown_path

FINAL_NAME = "final"  # inside the checkpoints: the adapter while it is written
NOT_SHIPPED = ("README.md", "training_args.bin")  # a card full of blanks, and a pickle with paths of this machine


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
