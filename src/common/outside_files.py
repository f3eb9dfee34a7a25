"""Files from outside (a base, a trained folder): read with a limit, and one guard around loading them.

Standard library only. What must stand in which file is left to `base_model_files` and the stages.
"""

from __future__ import annotations

import errno
import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from common.script import NO_THREAD, ScriptError, has_no_thread, is_memory_full, printable, reason_of

MAX_JSON_BYTES = 100_000_000  # the largest published tokenizer.json has 34 MB
LIBRARY_ENDINGS = {".json", ".jinja", ".txt", ".model", ".safetensors"}  # of the files that the libraries open
INNER_FOLDER = "additional_chat_templates"  # which the libraries read, too


class NotReadableError(ValueError):
    """The file holds no JSON, is too large, or is no regular file."""


@contextmanager
def open_regular(path: Path) -> Iterator[BinaryIO]:
    """Open a regular file for reading; raise NotReadableError for any other, or an OSError.

    A pipe or a device is refused without waiting for its content.
    """
    try:
        # Without O_NONBLOCK, opening a pipe waits for a writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno not in (errno.ENXIO, errno.ENODEV):
            raise
        raise NotReadableError("no regular file") from None  # a socket, a device without a driver
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise NotReadableError("no regular file")
    with open(descriptor, "rb") as file:
        yield file


def read_limited(path: Path, max_bytes: int = MAX_JSON_BYTES) -> bytes:
    """Return the content of a regular file of at most `max_bytes`; raise NotReadableError, or an OSError."""
    with open_regular(path) as file:
        if os.fstat(file.fileno()).st_size > max_bytes:
            raise NotReadableError(f"more than {max_bytes:,} bytes")
        return file.read(max_bytes)


def read_json(path: Path) -> Any:
    """Return the value in a JSON file; raise NotReadableError, or an OSError."""
    try:
        return json.loads(read_limited(path).decode("utf-8"))
    except (ValueError, RecursionError):
        raise NotReadableError("no readable JSON") from None


def find_irregular(folder: Path) -> Path | None:
    """Return a file of `folder` that a model library would wait for (a pipe, a device) or that is absurdly large."""
    for path in sorted([*folder.iterdir(), *(folder / INNER_FOLDER).glob("*")]):
        if path.suffix not in LIBRARY_ENDINGS or path.is_dir() or not path.exists():
            continue
        if not path.is_file() or (path.suffix != ".safetensors" and path.stat().st_size > MAX_JSON_BYTES):
            return path
    return None


@contextmanager
def loading(name: str, what: str, cure: str) -> Iterator[None]:
    """Turn every error in the block, which loads `what` of `name`, into a ScriptError of one line.

    The libraries raise errors of any type on a damaged or hostile file, also one that is no Exception (tokenizers).
    """
    shown = printable(name)
    try:
        yield
    except (ScriptError, KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # noqa: BLE001 - the guard around files from outside: a library may raise anything
        if is_memory_full(error):
            raise ScriptError(
                f"{shown}: {what} does not fit into the memory; close other programs, or choose a smaller base model"
            ) from error
        if has_no_thread(error):
            raise ScriptError(f"{shown}: {what} cannot be loaded, {NO_THREAD}") from error
        raise ScriptError(f"{shown}: {what} cannot be loaded ({reason_of(error)}); {cure}") from error
