"""Checkpoints that can be trusted: complete, undamaged, and of this very run.

`COMPLETE.json` is written last, after all files were flushed to disk. It has the names, sizes and sha256 of the files, and
the facts that decide what training computes (data, base, settings). The library writes in place, and silently loads a
checkpoint without its optimizer or with zeroed weights.
The contents of the files are left to the Trainer.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import shutil
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from common.outside_files import read_json
from common.private_files import flush_folder, replacing

MANIFEST_NAME = "COMPLETE.json"
CHECKPOINT_RE = re.compile(r"checkpoint-(\d+)")
MODEL_CARD_NAME = "README.md"  # which peft writes beside an adapter, without content
BROKEN_ENDING = ".broken"
# Facts that earlier versions recorded, with the values of their runs that can be resumed by this one.
FORMER_FACTS = {
    "name": "default",
    "padded_rows_per_batch": None,
    "padded_batches_per_step": 1,
    "template_day": None,
    "corrections_sha256": None,
    "correction_weight": None,
    "context": "none",
    "untold_share": 0,
}
LIBRARIES = ("torch", "transformers", "peft", "bitsandbytes", "accelerate", "datasets")
NUM_KEPT = 2  # the newest, besides the best: one may be damaged by a power cut


def complete_checkpoint(checkpoint_dir: Path, run_facts: Mapping[str, Any], versions: Mapping[str, str]) -> None:
    """Flush every file of `checkpoint_dir` to disk, then write its manifest."""
    (checkpoint_dir / MODEL_CARD_NAME).unlink(missing_ok=True)
    files = {}
    for path in sorted(checkpoint_dir.iterdir()):
        with path.open("rb") as file:
            os.fsync(file.fileno())
        files[path.name] = {"bytes": path.stat().st_size, "sha256": sha256_of(path)}
    with replacing(checkpoint_dir / MANIFEST_NAME) as file:
        json.dump({"run": run_facts, "versions": versions, "files": files}, file, indent=1)
    flush_folder(checkpoint_dir.parent)


def find_newest_complete(checkpoints_dir: Path) -> tuple[Path | None, list[str]]:
    """Return the newest complete checkpoint, or None, and what is wrong with each newer one.

    Newer ones are renamed to `<name>.broken`, so that no later run reads them.
    """
    problems: list[str] = []
    for checkpoint_dir in reversed(list_checkpoints(checkpoints_dir)):
        problem = find_problem(checkpoint_dir)
        if problem is None:
            return checkpoint_dir, problems
        problems.append(f"{checkpoint_dir.name}: {problem}")
        aside = checkpoint_dir.with_name(checkpoint_dir.name + BROKEN_ENDING)
        shutil.rmtree(aside, ignore_errors=True)
        checkpoint_dir.rename(aside)
    return None, problems


def list_checkpoints(checkpoints_dir: Path) -> list[Path]:
    """Return the checkpoint folders, complete or not, sorted by step (a clock may be set back)."""
    if not checkpoints_dir.is_dir():
        return []
    found = [path for path in checkpoints_dir.iterdir() if CHECKPOINT_RE.fullmatch(path.name)]
    return sorted(found, key=step_of)


def step_of(checkpoint_dir: Path) -> int:
    """Return the step after which the checkpoint was saved."""
    match = CHECKPOINT_RE.fullmatch(checkpoint_dir.name)
    assert match is not None
    return int(match[1])


def read_run_facts(checkpoint_dir: Path) -> dict[str, Any]:
    """Return the facts of the run that wrote a complete checkpoint."""
    facts: dict[str, Any] = _read_manifest(checkpoint_dir)["run"]
    return facts


def read_versions(checkpoint_dir: Path) -> dict[str, str]:
    """Return the versions of the libraries with which a complete checkpoint was written."""
    versions: dict[str, str] = _read_manifest(checkpoint_dir).get("versions", {})
    return versions


def library_versions() -> dict[str, str]:
    """Return the versions of Python and of the libraries that decide what training computes."""
    return {"python": platform.python_version()} | {name: version(name) for name in LIBRARIES}


def list_differences(saved: Mapping[str, Any], current: Mapping[str, Any]) -> list[str]:
    """Return a line with both values for each fact that differs."""
    return [
        f"{name}: {_shown(saved.get(name))} in the checkpoint, {_shown(current.get(name))} now"
        for name in sorted(saved.keys() | current.keys())
        if saved.get(name) != current.get(name)
    ]


def remove_old_checkpoints(checkpoints_dir: Path, best_step: int | None) -> None:
    """Delete all but the best and the newest checkpoints."""
    for checkpoint_dir in list_checkpoints(checkpoints_dir)[:-NUM_KEPT]:
        if step_of(checkpoint_dir) != best_step:
            (checkpoint_dir / MANIFEST_NAME).unlink(missing_ok=True)  # first: a half deleted one is incomplete
            shutil.rmtree(checkpoint_dir)


def sha256_of(path: Path) -> str:
    """Return the sha256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def find_problem(checkpoint_dir: Path) -> str | None:
    """Return what is wrong with a checkpoint, or None when it is complete and undamaged."""
    try:
        files = dict(_read_manifest(checkpoint_dir)["files"])
    except FileNotFoundError:
        return "it was not saved completely"
    except (ValueError, KeyError, TypeError):
        return f"its {MANIFEST_NAME} is damaged"
    for name, expected in files.items():
        path = checkpoint_dir / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != expected["bytes"] or sha256_of(path) != expected["sha256"]:
            return f"{name} is damaged"
    return None


def _read_manifest(checkpoint_dir: Path) -> dict[str, Any]:
    manifest: dict[str, Any] = read_json(checkpoint_dir / MANIFEST_NAME)
    return manifest


def _shown(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 40 else f"{text[:12]}..."
