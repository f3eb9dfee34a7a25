"""Take the trained model elsewhere: one ordinary model folder, or with --gguf one file for llama.cpp.

Reads   the folder saved_model (written by stage 2) and its base model
Writes  without --gguf, a new folder for transformers, vLLM and LLaMA-Factory, with the adapter merged into its base:
            weights (safetensors), tokenizer with its chat template, generation_config.json, Modelfile
        with --gguf, one file in saved_model/gguf/ and a Modelfile beside it: the merged model, with --adapter-only the
            adapter alone (small), with --base-only the base to put it beside. Where the package xllamacpp is installed,
            llama.cpp itself must read it as transformers does, or the file is refused
Run     python3 src/chat/export_model.py [--gguf q8_0] [--export-path PATH]
Takes   minutes; no GPU. A folder needs memory for the whole base (about 15 GB for a 7B), --gguf less than 2 GiB

The adapter was trained on the base in 4 bits and is merged into the base in full precision, so the exported model's
replies can differ a little from the chat's.

Exit status: 0 written; 1 refused or failed; 2 wrong usage; 129, 130, 143 when stopped.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import sys
from pathlib import Path

sys.path.insert(1, str(Path(__file__).resolve().parents[1]))  # for `common`

import chat_bot
from gguf_header import GGUF_DIR_NAME, Content, find_base_beside
from saved_model_checks import SavedModel, check_saved_model

from common.base_model_files import list_weight_files, prepare_environment, work_offline
from common.command_line import add_trained_model, make_parser, typed_path
from common.fill_in_block import block_path, check_blocks
from common.private_files import TEMPORARY_PREFIX, flush_folder, remove_abandoned_files, replacing
from common.script import PROJECT_ROOT, ScriptError, printable, run_script, shown_path, shown_python

DEFAULT_EXPORT_PATH = "exported_model"
GGUF_TYPES = ("q8_0", "q4_0", "f16", "f32")
PRIVATE = "It is as private as the chat it was trained on."
PRIVACY_OF_CONTENT = {"model": PRIVATE, "adapter": PRIVATE, "base": "It holds nothing of yours."}
MEMORY_PER_WEIGHT_BYTE = 1.3  # the base, one layer's merged copy, and the libraries

EXAMPLES = """examples:
  python3 src/chat/export_model.py
  python3 src/chat/export_model.py --saved-model-path other_model --export-path ~/models/me
      another trained folder, another target
  python3 src/chat/export_model.py --gguf q8_0
      one file for llama.cpp
  python3 src/chat/export_model.py --gguf q8_0 --base-only
  python3 src/chat/export_model.py --gguf q8_0 --adapter-only
      the base once, and after each training only the adapter beside it
"""


def main() -> int:
    """Check the trained folder, then write what was asked for, or check what was written earlier."""
    options = parse_arguments()
    check_blocks(Path(chat_bot.__file__))
    prepare_environment()
    work_offline()
    saved = check_saved_model(options.saved_model_path, options.base_model_id)
    if options.gguf is None:
        export_folder(saved, options.export_path or PROJECT_ROOT / DEFAULT_EXPORT_PATH)
    elif options.check_only:
        check_written_gguf(saved, options)
    else:
        export_gguf(saved, options)
    return 0


def parse_arguments() -> argparse.Namespace:
    """Read the command line; typed paths count from the current folder."""
    parser = make_parser(__doc__, EXAMPLES)
    add_trained_model(parser, chat_bot.saved_model_path)
    parser.add_argument(
        "--export-path",
        type=typed_path,
        metavar="PATH",
        help=f"a folder that does not exist yet (default: {DEFAULT_EXPORT_PATH}); with --gguf the name of the file "
        f"(default: {GGUF_DIR_NAME}/ in the trained folder, model-TYPE.gguf, adapter-TYPE.gguf or base-TYPE.gguf)",
    )
    files = parser.add_argument_group("one GGUF file for llama.cpp, instead of a folder")
    files.add_argument("--gguf", choices=GGUF_TYPES, help="q8_0: 8 bits a weight, q4_0: 4 bits, f16, f32: unquantised")
    parts = files.add_mutually_exclusive_group()
    parts.add_argument("--adapter-only", action="store_true", help="write the adapter, to go beside a base")
    parts.add_argument("--base-only", action="store_true", help="write the base without the adapter")
    files.add_argument("--check-only", action="store_true", help="write nothing; check the file written earlier")
    options = parser.parse_args()
    if options.gguf is None and (options.adapter_only or options.base_only or options.check_only):
        parser.error("--adapter-only, --base-only and --check-only need --gguf TYPE")
    return options


def export_folder(saved: SavedModel, export_dir: Path) -> None:
    """Write the merged model beside the target, verify it, rename it."""
    check_place(export_dir, saved)
    print(f"Merging {shown_path(saved.folder)} into {printable(saved.base.name)} ...", flush=True)

    # Only now: importing the model libraries takes seconds.
    from merged_model import write_merged_model
    from who_and_when import header_of_today

    unfinished_dir = export_dir.with_name(f"{TEMPORARY_PREFIX}{os.getpid()}-export")
    try:
        num_rows = write_merged_model(saved, unfinished_dir)
        flush_tree(unfinished_dir)
        unfinished_dir.rename(export_dir)
    finally:
        shutil.rmtree(unfinished_dir, ignore_errors=True)
    flush_folder(export_dir.parent)

    print(f"Checked: the tokenizer fits the model's {num_rows:,} rows, and prompts encode to the same ids as before.")
    print(f"Written: {shown_path(export_dir)}. {PRIVATE}")
    print_header(header_of_today(saved))
    print(f"Next, for example: transformers serve {shlex.quote(shown_path(export_dir))}")


def export_gguf(saved: SavedModel, options: argparse.Namespace) -> None:
    """Write the GGUF file under a temporary name, prove it, rename it, and write its Modelfile."""
    path = gguf_path(saved, options)
    check_gguf_name(path)

    # Only now: importing the model libraries takes seconds.
    from gguf_check import check_gguf
    from gguf_file import GgufExport
    from modelfile import MODELFILE_NAME, is_own_modelfile, write_modelfile
    from tqdm import tqdm
    from transformers import AutoTokenizer
    from who_and_when import header_of_today

    export = GgufExport(saved, gguf_content(options), options.gguf)
    check_disk(path, export.num_bytes)
    print(f"Writing {shown_path(path)} ...", flush=True)
    is_new_folder = not path.parent.exists()
    try:
        with (
            replacing(path, "wb") as file,
            tqdm(total=export.tensor_bytes, unit="B", unit_scale=True, disable=None) as bar,
        ):
            export.write(Path(file.name), bar.update)
            bar.close()
            compared = check_gguf(saved, export.content, Path(file.name), path, checking_command(), options.gguf)
    finally:
        if is_new_folder and path.parent.exists() and not any(path.parent.iterdir()):
            path.parent.rmdir()
    for line in compared:
        print(line)
    print(f"Written: {shown_path(path)} ({path.stat().st_size / 1e6:,.0f} MB). {PRIVACY_OF_CONTENT[export.content]}")

    if export.content == "base":
        return
    base_path = find_base_beside(saved, path) if export.content == "adapter" else path
    base_name = base_path.name if base_path is not None else f"base-{options.gguf}.gguf"
    tokenizer = AutoTokenizer.from_pretrained(saved.folder, trust_remote_code=False)
    header = header_of_today(saved)
    modelfile_path = path.with_name(MODELFILE_NAME)
    had_modelfile = modelfile_path.exists()
    if had_modelfile and not is_own_modelfile(modelfile_path):
        print(f"Not written: {shown_path(modelfile_path)}, for Ollama; there is one that this script did not write.")
    else:
        adapter_name = path.name if export.content == "adapter" else None
        write_modelfile(modelfile_path, tokenizer, saved.generation, base_name, adapter_name, header=header)
        print(
            f"Written: {shown_path(modelfile_path)}, for Ollama"
            + (f" (now for {printable(path.name)}; the earlier one was replaced)." if had_modelfile else ".")
        )
    print_header(header)
    if options.export_path is None:  # where the chat looks for it
        print(f"Next, here or where {shown_path(saved.folder)} is copied to:\n  {chat_command(saved)}")


def print_header(header: str) -> None:
    """Print the line that other programs have to put before a conversation, for a model that was trained with one."""
    if header:
        print(f"Other programs: begin each conversation with whom and when, as in training: {printable(header)}")


def chat_command(saved: SavedModel) -> str:
    """Return the command that chats with this trained folder."""
    command = [shown_python(), shown_path(Path(chat_bot.__file__))]
    if saved.folder.absolute() != block_path(chat_bot.saved_model_path).absolute():
        command += ["--saved-model-path", shown_path(saved.folder)]
    return shlex.join(command)


def check_written_gguf(saved: SavedModel, options: argparse.Namespace) -> None:
    """Check a GGUF file that was written earlier."""
    path = gguf_path(saved, options)

    from gguf_check import check_gguf

    for line in check_gguf(saved, gguf_content(options), path, path, checking_command(), options.gguf):
        print(line)


def gguf_content(options: argparse.Namespace) -> Content:
    """Return what the file holds."""
    return "adapter" if options.adapter_only else "base" if options.base_only else "model"


def gguf_path(saved: SavedModel, options: argparse.Namespace) -> Path:
    """Return the file's place."""
    typed: Path | None = options.export_path
    return typed or saved.folder / GGUF_DIR_NAME / f"{gguf_content(options)}-{options.gguf}.gguf"


def checking_command() -> str:
    """Return the command that checks the file which this command writes."""
    arguments = [argument for argument in sys.argv[1:] if argument != "--check-only"]
    return f"{shown_python()} {shlex.join([shown_path(Path(sys.argv[0])), *arguments, '--check-only'])}"


def check_gguf_name(path: Path) -> None:
    """Raise ScriptError when `path` is taken, or not the name of a GGUF file."""
    if path.is_dir():
        raise ScriptError(f"{shown_path(path)}: is a folder; with --gguf, give the name of a file to --export-path")
    if path.exists() or path.is_symlink():
        raise ScriptError(f"{shown_path(path)}: exists already; remove it, or choose another --export-path")
    if path.suffix != ".gguf":
        raise ScriptError(f"{shown_path(path)}: the name of a GGUF file ends in .gguf; choose another --export-path")
    check_parent(path)
    if path.parent.is_dir():
        remove_abandoned_files(path.parent)


def check_parent(path: Path) -> None:
    """Raise ScriptError unless a file or folder can be made at `path`, which does not exist."""
    if path.name == "..":
        raise ScriptError(f"{shown_path(path)}: ends in .., which is no name; choose another --export-path")
    existing = next(folder for folder in path.absolute().parents if folder.exists() or folder.is_symlink())
    if not existing.is_dir():
        raise ScriptError(f"{shown_path(existing)}: is no folder; choose another --export-path")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise ScriptError(
            f"{shown_path(existing)}: permission denied; choose another --export-path, or change its mode"
        )


def check_disk(path: Path, num_bytes: int) -> None:
    """Raise ScriptError when `num_bytes` do not fit on the disk of `path`."""
    existing = next(folder for folder in path.absolute().parents if folder.is_dir())
    free = shutil.disk_usage(existing).free
    if num_bytes > free:
        raise ScriptError(
            f"{shown_path(path)}: takes {num_bytes / 2**30:.1f} GiB of disk, {free / 2**30:.1f} GiB are free; "
            "free some space, or choose another --export-path"
        )


def check_place(export_dir: Path, saved: SavedModel) -> None:
    """Raise ScriptError when `export_dir` exists, or when memory or disk are too small for the merged model."""
    import psutil

    if export_dir.exists() or export_dir.is_symlink():
        raise ScriptError(f"{shown_path(export_dir)}: exists already; remove it, or choose another --export-path")
    check_parent(export_dir)
    num_bytes = sum(path.stat().st_size for path in list_weight_files(saved.base_dir))
    available = psutil.virtual_memory().available
    if num_bytes * MEMORY_PER_WEIGHT_BYTE > available:
        raise ScriptError(
            f"{printable(saved.base.name)}: merging needs about {num_bytes * MEMORY_PER_WEIGHT_BYTE / 2**30:.0f} GiB of memory, "
            f"{available / 2**30:.0f} GiB are free; close other programs, or export on a larger machine"
        )
    if export_dir.parent.is_dir():
        remove_abandoned_files(export_dir.parent)
    check_disk(export_dir, num_bytes)
    export_dir.parent.mkdir(parents=True, exist_ok=True, mode=0o700)


def flush_tree(folder: Path) -> None:
    """Flush every file of `folder` to disk; the libraries do not."""
    for path in folder.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
    flush_folder(folder)


if __name__ == "__main__":
    run_script(main)
