"""What the command lines of all scripts share: the layout of the help, paths, numbers, flags for the trained folder.

Standard library only: it is imported before `--help` is answered. All other flags are left to each script.
"""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from common.fill_in_block import block_path
from common.script import ScriptError, printable, shown_path

DEVICES = ("auto", "cpu", "cuda", "mps")
MAX_DIGITS = 18  # of a whole number: every random number generator accepts that many


class _Parser(argparse.ArgumentParser):
    """The library's parser, with what was typed made printable in its errors."""

    def error(self, message: str) -> NoReturn:
        super().error(printable(message))


def make_parser(description: str, epilog: str = "") -> argparse.ArgumentParser:
    """Return a parser with `--debug`; its help keeps the line breaks of both texts.

    Flags are typed in full: a command that is shown again (`--resume`) is made of the flags that were typed.
    """
    parser = _Parser(
        description=description,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser


def add_trained_model(parser: argparse.ArgumentParser, saved_model_path: str) -> None:
    """Add `--saved-model-path` and `--base-model-id`, for the scripts that read a trained folder.

    `saved_model_path` is the fill-in block's value, which counts from the project's root.
    """
    model = parser.add_argument_group("the trained model (typed paths count from the current folder)")
    model.add_argument(
        "--saved-model-path",
        type=typed_path,
        default=block_path(saved_model_path),
        metavar="DIR",
        help=f"the trained folder (default: {saved_model_path})",
    )
    model.add_argument(
        "--base-model-id",
        metavar="ID",
        help="where its base model lies now; a different base is refused (default: where it was in training)",
    )


def add_device(parser: argparse.ArgumentParser) -> None:
    """Add `--device`."""
    parser.add_argument("--device", choices=DEVICES, default="auto", help="default: the best available")


def typed_path(text: str) -> Path:
    """Return a typed path, with `~` expanded; `~` of an unknown user stays, as in a shell."""
    return Path(os.path.expanduser(text))


def check_folder_of(path: Path) -> None:
    """Raise ScriptError unless the folder of the file `path` exists.

    Creating it would hide a typing mistake: the file would be where nobody looks for it.
    """
    if not path.parent.is_dir():
        raise ScriptError(f"{shown_path(path.parent)}: no such folder; make it, or choose another place")


def whole_number(lowest: int, highest: int | None = None) -> Callable[[str], int]:
    """Return the argparse type of a whole number from `lowest`, up to `highest` if given."""
    wanted = f"from {lowest}" if highest is None else f"from {lowest} to {highest}"

    def read(text: str) -> int:
        is_whole = text.isascii() and text.isdigit() and len(text) <= MAX_DIGITS
        if not is_whole or int(text) < lowest or (highest is not None and int(text) > highest):
            raise argparse.ArgumentTypeError(f"must be a whole number {wanted}, not {text!r}")
        return int(text)

    return read


def number_above_0(text: str) -> float:
    """Parse a flag's value: a finite number above 0."""
    number = _number(text)
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"must be a number above 0, not {text!r}")
    return number


def share(text: str) -> float:
    """Parse a flag's value: a number from 0 to below 1."""
    number = _number(text)
    if not 0 <= number < 1:
        raise argparse.ArgumentTypeError(f"must be a number from 0 to below 1, not {text!r}")
    return number


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan  # fails every comparison
