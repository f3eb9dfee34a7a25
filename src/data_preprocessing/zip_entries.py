"""The entries of a zip, read in memory and in pieces: nothing is unpacked, and no name or size it claims is believed."""

from __future__ import annotations

import io
import lzma
import re
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO, cast

from export_error import EXPORT_AGAIN, ExportError

# A zip bomb inflates without end. The largest exports have some 10 MB of text, which deflates about 4 to 1.
MAX_UNZIPPED_BYTES = 200_000_000
MAX_RATIO = 100
MIN_BYTES_FOR_RATIO = 1_000_000

# What Python raises for damaged and hostile zips.
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


@contextmanager
def _own_errors() -> Iterator[None]:
    try:
        yield
    except ExportError:
        raise
    except ZIP_ERRORS as error:
        is_locked = "password" in str(error) or "encrypted" in str(error)
        raise ExportError(PASSWORD_PROBLEM if is_locked else f"is a damaged zip; {EXPORT_AGAIN}") from error


def entry_names(file: BinaryIO) -> list[str]:
    """Return the names of all entries."""
    with _own_errors(), zipfile.ZipFile(file) as archive:
        return archive.namelist()


def text_names(names: list[str]) -> list[str]:
    """Return the .txt files among entries, each once, without those that a Mac adds."""
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
def open_entry(file: BinaryIO, name: str) -> Iterator[BinaryIO]:
    """Open one entry for reading; raise ExportError, also while it is read, when it is locked, damaged or a bomb."""
    with _own_errors():
        archive = zipfile.ZipFile(file)
        info = archive.getinfo(name)
        if info.flag_bits & ENCRYPTED_FLAG:
            raise ExportError(PASSWORD_PROBLEM)
        entry = archive.open(info)
    with archive, entry, io.BufferedReader(_MeteredEntry(cast(BinaryIO, entry), info.compress_size)) as reader:
        yield reader


class _MeteredEntry(io.RawIOBase):
    """An entry that counts what was read of it."""

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
