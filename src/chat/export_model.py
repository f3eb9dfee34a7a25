"""Merge the trained adapter into its base: one folder that transformers, vLLM, LLaMA-Factory and llama.cpp read.

Reads   the folder saved_model (written by stage 2) and its base model
Writes  a new folder: weights (safetensors), tokenizer with its chat template, generation_config.json, Modelfile
Run     python3 src/chat/export_model.py [--export-path exported_model]
Takes   minutes; no GPU, but memory for the whole base (about 15 GB for a 7B)

The adapter was trained on the base in 4 bits and is merged into the base in full precision, so the exported model's
replies can differ a little from the chat's.

Exit status: 0 written; 1 refused or failed; 2 wrong usage; 129, 130, 143 when stopped.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from pathlib import Path

sys.path.insert(1, str(Path(__file__).resolve().parents[1]))  # for `common`

import chat_bot
from saved_model_checks import SavedModel, check_saved_model

from common.base_model_files import list_weight_files, prepare_environment, work_offline
from common.command_line import add_trained_model, make_parser, typed_path
from common.script import (
    PROJECT_ROOT,
    TEMPORARY_PREFIX,
    ScriptError,
    check_blocks,
    flush_folder,
    remove_abandoned_files,
    run_script,
    shown_path,
)

DEFAULT_EXPORT_PATH = "exported_model"
MEMORY_PER_WEIGHT_BYTE = 1.3  # the base, one layer's merged copy, and the libraries

EXAMPLES = """examples:
  python3 src/chat/export_model.py
  python3 src/chat/export_model.py --saved-model-path other_model --export-path ~/models/me
      another trained folder, another target
"""


def main() -> int:
    """Check, write the merged model beside the target, verify it, rename it."""
    options = parse_arguments()
    export_dir: Path = options.export_path
    check_blocks(Path(chat_bot.__file__))
    prepare_environment()
    work_offline()
    saved = check_saved_model(options.saved_model_path, options.base_model_id)
    check_place(export_dir, saved)
    print(f"Merging {shown_path(saved.folder)} into {saved.base.name} ...", flush=True)

    # Only now: importing the model libraries takes seconds.
    from merged_model import write_merged_model

    unfinished_dir = export_dir.with_name(f"{TEMPORARY_PREFIX}{os.getpid()}-export")
    try:
        num_rows = write_merged_model(saved, unfinished_dir)
        flush_tree(unfinished_dir)
        unfinished_dir.rename(export_dir)
    finally:
        shutil.rmtree(unfinished_dir, ignore_errors=True)
    flush_folder(export_dir.parent)

    print(f"Checked: the tokenizer fits the model's {num_rows:,} rows, and prompts encode to the same ids as before.")
    print(f"Written: {shown_path(export_dir)}. It is as private as the chat it was trained on.")
    print(f"Next, for example: transformers serve {shown_path(export_dir)}")
    return 0


def parse_arguments() -> argparse.Namespace:
    """Read the command line; typed paths count from the current folder."""
    parser = make_parser(__doc__, EXAMPLES)
    add_trained_model(parser, chat_bot.saved_model_path)
    parser.add_argument(
        "--export-path",
        type=typed_path,
        default=PROJECT_ROOT / DEFAULT_EXPORT_PATH,
        metavar="DIR",
        help=f"a folder that does not exist yet (default: {DEFAULT_EXPORT_PATH})",
    )
    return parser.parse_args()


def check_place(export_dir: Path, saved: SavedModel) -> None:
    """Raise ScriptError when `export_dir` exists, or when memory or disk are too small for the merged model."""
    import psutil

    if export_dir.exists() or export_dir.is_symlink():
        raise ScriptError(f"{shown_path(export_dir)}: exists already; remove it, or choose another --export-path")
    num_bytes = sum(path.stat().st_size for path in list_weight_files(saved.base_dir))
    available = psutil.virtual_memory().available
    if num_bytes * MEMORY_PER_WEIGHT_BYTE > available:
        raise ScriptError(
            f"{saved.base.name}: merging needs about {num_bytes * MEMORY_PER_WEIGHT_BYTE / 2**30:.0f} GiB of memory, "
            f"{available / 2**30:.0f} GiB are free; close other programs, or export on a larger machine"
        )
    export_dir.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    remove_abandoned_files(export_dir.parent)
    free = shutil.disk_usage(export_dir.parent).free
    if num_bytes > free:
        raise ScriptError(
            f"{shown_path(export_dir)}: the merged model takes {num_bytes / 2**30:.1f} GiB of disk, "
            f"{free / 2**30:.1f} GiB are free; free some space, or choose another --export-path"
        )


def flush_tree(folder: Path) -> None:
    """Flush every file of `folder` to disk; the libraries do not."""
    for path in folder.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
    flush_folder(folder)


if __name__ == "__main__":
    run_script(main)
