"""What the command lines of `chat_bot`, `style_report` and `export_model` share: the trained folder, paths, numbers.

Standard library only: it is imported before `--help` is answered. It leaves the other flags to each script.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from pathlib import Path

from chat_script import PROJECT_ROOT, ScriptError, shown_path

DEVICES = ("auto", "cpu", "cuda", "mps")
MAX_DIGITS = 18  # of a whole number: what every generator of random numbers accepts


def make_parser(description: str, epilog: str, saved_model_path: str) -> argparse.ArgumentParser:
    """Return a parser with `--saved-model-path`, `--base-model-id` and `--debug`.

    `saved_model_path` is the fill-in block's value, which counts from the project's root.
    """
    parser = argparse.ArgumentParser(
        description=description, epilog=epilog, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    model = parser.add_argument_group("the trained model (typed paths count from the current folder)")
    model.add_argument(
        "--saved-model-path",
        type=typed_path,
        default=PROJECT_ROOT / saved_model_path,
        metavar="DIR",
        help=f"the trained folder (default: {saved_model_path})",
    )
    model.add_argument(
        "--base-model-id",
        metavar="ID",
        help="where the base it was trained on lies now; any other is refused (default: where it was)",
    )
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser


def add_device(parser: argparse.ArgumentParser) -> None:
    """Add `--device`."""
    parser.add_argument("--device", choices=DEVICES, default="auto", help="default: the best there is")


def typed_path(text: str) -> Path:
    """Return a typed path, which counts from the current folder; `~` of an unknown user stays, as in a shell."""
    return Path(os.path.expanduser(text))


def check_folder_of(path: Path) -> None:
    """Raise ScriptError unless the folder in which the file `path` is to lie exists.

    Making it would hide a slip of the keys: the file would lie where nobody looks for it.
    """
    if not path.parent.is_dir():
        raise ScriptError(f"{shown_path(path.parent)}: no such folder; make it, or choose another place")


def whole_number(lowest: int) -> Callable[[str], int]:
    """Return the reader of a flag that takes a whole number from `lowest` on."""

    def read(text: str) -> int:
        is_whole = text.isascii() and text.isdigit() and len(text) <= MAX_DIGITS
        if not is_whole or int(text) < lowest:
            raise argparse.ArgumentTypeError(f"is a whole number from {lowest}, not {text!r}")
        return int(text)

    return read
