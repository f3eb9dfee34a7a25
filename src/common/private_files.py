"""Files that are whole or absent and readable by their owner only, and folders that one run uses at a time.

What is written is left to the caller.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, Literal

from common.script import ScriptError, shown_path

TEMPORARY_PREFIX = ".unfinished-"  # then the process number, so that a later run knows which are abandoned
TEMPORARY_RE = re.compile(re.escape(TEMPORARY_PREFIX) + r"(\d+)-")


@contextmanager
def replacing(path: Path, mode: Literal["w", "wb"] = "w") -> Iterator[IO[Any]]:
    """Open a private temporary file that replaces `path`, flushed to disk, when the block ends without an error.

    When the block raises, the temporary file is removed and `path` is unchanged. A missing folder is created (0700).
    """
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    # A short name, not `path` with a suffix: a name of 250 bytes cannot get longer.
    temporary_path = path.parent / f"{TEMPORARY_PREFIX}{os.getpid()}-{os.urandom(6).hex()}"
    # The name of a file may be no UTF-8; in JSON, what it is replaced by is read as the same name again.
    as_text: dict[str, Any] = {"encoding": "utf-8", "errors": "backslashreplace", "newline": "\n"}
    try:  # begins before the file exists: a signal may arrive at any line
        with open(temporary_path, f"x{mode[1:]}", opener=_open_private, **(as_text if mode == "w" else {})) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary_path, path)
    except BaseException as error:
        temporary_path.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename in (None, str(temporary_path)):
            error.filename = str(path)  # the error of a failed write names no file
        raise
    flush_folder(path.parent)


def _open_private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def flush_folder(folder: Path) -> None:
    """Flush the entries of `folder` to disk: otherwise a power cut may lose a rename."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network drives cannot flush a folder
            error.filename = str(folder)  # the error of a failed flush names no file
            raise
    finally:
        os.close(handle)


def remove_abandoned_files(folder: Path) -> None:
    """Delete the temporary files and folders that killed runs left in `folder`."""
    for path in folder.glob(f"{TEMPORARY_PREFIX}*"):
        match = TEMPORARY_RE.match(path.name)
        if not match or _is_running(int(match[1])):
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def is_temporary(path: Path) -> bool:
    """Tell whether `path` has the name of a temporary file or folder of this project."""
    return TEMPORARY_RE.match(path.name) is not None


def _is_running(process_id: int) -> bool:
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


@contextmanager
def exclusive_use(folder: Path) -> Iterator[None]:
    """Lock `folder` for this process; raise ScriptError when another run has locked it.

    The lock is on the folder itself, so it ends with the process and leaves no file. Folders created for it are removed
    again if they stay empty.
    """
    created = [path for path in (folder, *folder.parents) if not path.exists()]  # the innermost first
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ScriptError(f"{shown_path(folder)}: is in use by another run; wait until it ends") from None
        yield
    finally:
        os.close(handle)
        with suppress(OSError):  # no longer empty
            for path in created:
                path.rmdir()
