"""Is there room on the disk: for the checkpoints of a run, and for a base model that is to be downloaded."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from checkpoints import NUM_KEPT, list_checkpoints
from memory_estimate import shown_gib
from model_shape import ParameterCount
from training_progress import shown_bytes

from common.base_model_files import BaseModel, HubListing, hub_cache_dir, hub_folder_of
from common.model_folder import CHECKPOINTS_NAME
from common.script import ScriptError, shown_path

KEPT_CHECKPOINTS = NUM_KEPT + 1  # and the best one


def refuse_full_disk(output_dir: Path, count: ParameterCount, resumes: bool = False) -> None:
    """Raise ScriptError if the disk cannot hold the checkpoints; those of a run to resume are there already."""
    problem = find_disk_problem(count, output_dir, resumes)
    if problem:
        raise ScriptError(f"{shown_path(output_dir)}: {problem}")


def refuse_large_download(listing: HubListing) -> None:
    """Raise ScriptError if the disk cannot hold the download; what an interrupted one left is there already."""
    folder = hub_cache_dir()
    free_bytes = _free_disk_bytes(folder)
    saved_bytes = sum(path.stat().st_size for path in (hub_folder_of(listing.hub_id) / "blobs").glob("*"))
    if free_bytes < listing.total_bytes - saved_bytes:
        raise ScriptError(
            f"{listing.hub_id}: the download takes {shown_download(listing.total_bytes)}, {shown_download(free_bytes)} are free "
            f"in {shown_path(folder)}; free some space, set HF_HOME to a folder on a larger disk, or choose a smaller base"
        )


def shown_download(num_bytes: float) -> str:
    """Return the size of a download as messages, the README and the hub show it.

    >>> shown_download(15_007_768_576)
    '15.0 GB'
    """
    return f"{num_bytes / 1e9:.1f} GB"


def describe_disk(base: BaseModel, count: ParameterCount, output_dir: Path, adapter_dtype: torch.dtype) -> str:
    """Return the line of `--check` about the disk."""
    base_bytes = 2 * (count.total - count.trainable)  # published in two bytes per weight
    download = "on disk" if base.folder is not None else f"{shown_download(base_bytes)} to download"
    return (
        f"  disk        base {download}; adapter {shown_bytes(adapter_dtype.itemsize * count.trainable)}, while training up to "
        f"{shown_bytes(_training_disk_bytes(count))}; free {shown_bytes(_free_disk_bytes(output_dir))}"
    )


def find_disk_problem(count: ParameterCount, output_dir: Path, resumes: bool) -> str | None:
    """Return what is wrong and what to do when the disk cannot hold the checkpoints, else None."""
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
