"""Which program computes the replies: transformers, or llama.cpp with a GGUF file of the trained folder.

Standard library only, unless there may be a CUDA card. Loading is left to `trained_model` and `llama_cpp_model`.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

from gguf_header import ARCHITECTURES, GGUF_DIR_NAME, ModelFiles, find_model_files
from llama_cpp_server import INSTALL_COMMAND, is_llama_cpp_installed
from saved_model_checks import SavedModel, find_base_of

from common.base_model_files import read_json_object
from common.fill_in_block import block_path
from common.script import PROJECT_ROOT, ScriptError, shown_path, shown_python

ENGINES = ("auto", "transformers", "llama.cpp")
SUGGESTED_TYPE = "q8_0"

# Where the driver of an NVIDIA card shows itself, also in WSL. Asking torch takes seconds and 250 MB.
CUDA_SIGNS = ("/proc/driver/nvidia/version", "/dev/dxg")


def add_engine(parser: argparse.ArgumentParser) -> None:
    """Add `--engine`."""
    parser.add_argument(
        "--engine",
        choices=ENGINES,
        default="auto",
        help="default: llama.cpp where there is no CUDA card and a GGUF file in the trained folder, else transformers",
    )


@dataclass(frozen=True)
class EngineChoice:
    """What computes the replies."""

    saved: SavedModel  # with its base, where that is needed
    model_files: ModelFiles | None  # for llama.cpp; None: transformers
    notice: str | None = None  # a sentence for the user


def choose_engine(
    engine: str, saved: SavedModel, base_model_id: str | None, may_be_processor: bool, export_command: str
) -> EngineChoice:
    """Choose the engine and find what it needs; `engine` is the flag's value.

    `may_be_processor`: the command line asks for no other device and number type. Raises ScriptError with the cure.
    """
    is_wanted = engine == "llama.cpp"
    if engine == "transformers" or (not is_wanted and (not may_be_processor or has_cuda())):
        return EngineChoice(find_base_of(saved, base_model_id), None)
    found = find_model_files(saved)
    if isinstance(found, ModelFiles) and not is_llama_cpp_installed():
        found = ScriptError(
            f"{shown_path(found.model_path)}: llama.cpp is not installed, which reads it; {INSTALL_COMMAND}"
        )
    if found is None and is_wanted:
        found = ScriptError(
            f"{shown_path(saved.folder / GGUF_DIR_NAME)}: no GGUF file of this training; write one: {export_command}"
        )
    if isinstance(found, ModelFiles):
        # The base is not needed; one that is named is compared all the same.
        return EngineChoice(saved if base_model_id is None else find_base_of(saved, base_model_id), found)
    if is_wanted and found is not None:
        raise found
    try:
        saved = find_base_of(saved, base_model_id)
    except ScriptError as error:
        raise (found or error) from None
    if found is None and read_json_object(saved.base_dir / "config.json").get("model_type") not in ARCHITECTURES:
        return EngineChoice(saved, None)
    if found is None:
        return EngineChoice(
            saved,
            None,
            f"without an NVIDIA card, llama.cpp computes all but the smallest models several times as fast: {export_command}",
        )
    return EngineChoice(saved, None, str(found))


def has_cuda() -> bool:
    """Return whether torch can use a CUDA card here; torch is imported only where there may be one."""
    if not any(Path(sign).exists() for sign in CUDA_SIGNS):
        return False
    from common.compute_device import can_use_cuda

    return can_use_cuda()


def work_without_torch() -> None:
    """Let the tokenizer's library do without torch, which takes seconds and 180 MB; call it before importing any library."""
    if "torch" not in sys.modules:
        sys.modules["torch"] = None  # type: ignore[assignment]  # importing it fails from here on
        os.environ["TRANSFORMERS_VERBOSITY"] = "error"  # it would say so


def command_to_export(saved: SavedModel, default_saved_model_path: str, base_model_id: str | None) -> str:
    """Return the command that writes a GGUF file of this trained folder, with the package that reads it."""
    command = [shown_python(), shown_path(PROJECT_ROOT / "src/chat/export_model.py"), "--gguf", SUGGESTED_TYPE]
    if saved.folder.absolute() != block_path(default_saved_model_path).absolute():
        command += ["--saved-model-path", shown_path(saved.folder)]
    if base_model_id is not None:
        command += ["--base-model-id", base_model_id]
    install = "" if is_llama_cpp_installed() else f"{INSTALL_COMMAND}, then "
    return install + shlex.join(command)
