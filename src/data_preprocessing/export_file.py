"""A path -> the bytes of a file or of an entry of the phone's zip; and the error that every reading module raises.

Nothing is unpacked to disk, and no name or size in a zip's directory is trusted. Which entry is the chat is left to
`export_source`.
"""

from __future__ import annotations

import io
import lzma
import re
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from common.file_kinds import LONGEST_START, name_file_kind


class ExportError(ValueError):
    """An export that cannot be read, worded `what is wrong; what to do`; lines after the first are indented details.

    It quotes nothing from the chat. The script adds the file's name.
    """


EXPORT_AGAIN = "export the chat again in WhatsApp (chat > More > Export chat)"

# Limits against zip bombs. The largest exports have about 10 MB of text, which deflate compresses about 4 to 1.
MAX_UNZIPPED_BYTES = 200_000_000
MAX_RATIO = 100
MIN_BYTES_FOR_RATIO = 1_000_000

# What zipfile raises for damaged and hostile zips.
ZIP_ERRORS = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    NotImplementedError,
    RuntimeError,
    ValueError,
    OSError,
)
ENCRYPTED_FLAG = 1

PASSWORD_PROBLEM = "is protected by a password; unpack it and give the .txt inside"


UNPACK_ONCE = "unpack it once"

READABLE_KINDS = (None, "a zip archive", "UTF-16 text")
READABLE_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # of phones; other ones unpack a few bytes to a gigabyte


@contextmanager
def open_file(path: Path) -> Iterator[BinaryIO]:
    """Open a regular file for reading; raise ExportError for any other file and when permission is denied."""
    file_state(path)
    try:
        file = path.open("rb")
    except OSError as error:
        raise ExportError(f"cannot be read ({error.strerror}); check its permissions") from error
    with file:
        yield file


def file_state(path: Path) -> tuple[int, int, int]:
    """Return size, time of change and inode of a regular file; raise ExportError for any other, without opening it."""
    try:
        state = path.stat()
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise ExportError(f"cannot be read ({getattr(error, 'strerror', 'no such file')}); check the path") from error
    if stat.S_ISDIR(state.st_mode):
        raise ExportError("is a folder; name one of the exports in it")
    if not stat.S_ISREG(state.st_mode):  # reading a pipe or a device might never end
        raise ExportError("is not a regular file; name a .txt or .zip")
    return state.st_size, state.st_mtime_ns, state.st_ino


def read_up_to(file: BinaryIO, num_bytes: int) -> bytes:
    """Return the next `num_bytes` bytes, fewer only at the end of the file."""
    parts = []
    while num_bytes and (part := file.read(num_bytes)):
        parts.append(part)
        num_bytes -= len(part)
    return b"".join(parts)


def refuse_other_kinds(start: bytes, is_inside_zip: bool = False) -> None:
    """Raise ExportError when a file that begins with `start` is a picture, a document or an archive that is no zip."""
    kind = name_file_kind(start)
    if is_inside_zip and kind == "a zip archive":
        raise ExportError(f"holds a zip; {UNPACK_ONCE} and give that one")
    if kind not in READABLE_KINDS:
        raise ExportError(f"is {kind}, not an export; {EXPORT_AGAIN}")


def is_zip(path: Path, file: BinaryIO) -> bool:
    """Tell whether `file` is a zip: by its first bytes, or by its name and its directory when other bytes come first."""
    if start_of(file).startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return True
    has_directory = path.suffix.lower() == ".zip" and zipfile.is_zipfile(file)
    file.seek(0)
    return has_directory


def start_of(file: BinaryIO) -> bytes:
    """Return the first bytes of `file`, which is then read from its start again."""
    start = file.read(LONGEST_START)
    file.seek(0)
    return start


@contextmanager
def _own_errors() -> Iterator[None]:
    try:
        yield
    except ExportError:
        raise
    except ZIP_ERRORS as error:
        is_locked = "password" in str(error) or "encrypted" in str(error)
        raise ExportError(PASSWORD_PROBLEM if is_locked else f"is a damaged zip; {EXPORT_AGAIN}") from error


@contextmanager
def open_zip(file: BinaryIO) -> Iterator[zipfile.ZipFile]:
    """Open a zip; raise ExportError when it is damaged."""
    with _own_errors():
        archive = zipfile.ZipFile(file)
    with archive:
        yield archive


def text_names(names: list[str]) -> list[str]:
    """Return the .txt files among the entries, each once, without those that macOS adds."""
    return [
        name
        for name in dict.fromkeys(names)
        if name.lower().endswith(".txt") and not base_name(name).startswith("._") and "__MACOSX" not in name
    ]


def base_name(name: str) -> str:
    """Return the last part of an entry's name.

    >>> base_name("a/b\\\\_chat.txt")
    '_chat.txt'
    """
    return re.split(r"[/\\]", name)[-1]


@contextmanager
def open_entry(archive: zipfile.ZipFile, name: str) -> Iterator[BinaryIO]:
    """Open one entry for reading; raise ExportError, also while it is read, when it is encrypted, damaged or a bomb."""
    with _own_errors():
        info = archive.getinfo(name)
        if info.flag_bits & ENCRYPTED_FLAG:
            raise ExportError(PASSWORD_PROBLEM)
        if info.compress_type not in READABLE_METHODS:
            raise ExportError(f"is packed as no phone packs it; {UNPACK_ONCE} and give the .txt inside")
        entry = archive.open(info)
    with entry, io.BufferedReader(_MeteredEntry(cast(BinaryIO, entry), info.compress_size)) as reader:
        yield reader


class _MeteredEntry(io.RawIOBase):
    """An entry that counts the bytes read and stops at the limits."""

    def __init__(self, entry: BinaryIO, num_packed_bytes: int) -> None:
        self._entry = entry
        self._num_packed_bytes = num_packed_bytes
        self._num_read_bytes = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        with _own_errors():
            data = self._entry.read(len(buffer))
        self._num_read_bytes += len(data)
        if self._num_read_bytes > MAX_UNZIPPED_BYTES or (
            self._num_read_bytes > MIN_BYTES_FOR_RATIO and self._num_read_bytes > MAX_RATIO * self._num_packed_bytes
        ):
            raise ExportError(f"unpacks to more than any export (a zip bomb?); {EXPORT_AGAIN}")
        buffer[: len(data)] = data
        return len(data)
