"""A WhatsApp export on disk (.txt, the phone's .zip, a folder of them) -> its lines of text, one at a time.

It decides what a file is by its first bytes, never by its name; reads a zip in memory without unpacking anything; counts
bytes that are no text; and refuses what cannot be an export before reading it. What the lines mean is left to
`header_format` and `whatsapp_export`.
"""

from __future__ import annotations

import codecs
import io
import lzma
import os
import re
import stat
import struct
import zipfile
import zlib
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from export_error import EXPORT_AGAIN, ExportError
from header_format import read_header

BLOCK_BYTES = 1 << 16  # 64 KiB: larger blocks were no faster and cost memory
SNIFF_BYTES = 1 << 18  # enough to tell the encoding, and an export from a note attached to it

# The longest line WhatsApp can write is a message of 65,536 characters. More than this is no export.
MAX_TEXT_CHARS = 1 << 24

# A zip bomb inflates without end. The largest export is some 10 MB of text, and text deflates about 4 to 1.
MAX_UNZIPPED_BYTES = 200 * 1000 * 1000
MAX_RATIO = 100
MIN_BYTES_FOR_RATIO = 1000 * 1000

NUM_SHOWN_ENTRIES = 5

# Of a damaged or hostile zip, Python raises any of these.
ZIP_ERRORS = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    NotImplementedError,
    RuntimeError,
    ValueError,
    OSError,
    struct.error,
)

# The first bytes of files that people take for an export.
OTHER_KINDS = {
    b"\x1f\x8b": "a gzip archive",
    b"Rar!": "a RAR archive",
    b"7z\xbc\xaf\x27\x1c": "a 7-Zip archive",
    b"BZh": "a bzip2 archive",
    b"\x89PNG": "a PNG picture",
    b"\xff\xd8\xff": "a JPEG picture",
    b"%PDF": "a PDF document",
    b"SQLite format 3\0": "a database (a phone's backup is no export)",
    b"\xd0\xcf\x11\xe0": "an Office document",
}

BYTE_ORDER_MARKS = (  # the longer first: UTF-32 LE begins like UTF-16 LE
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
    (codecs.BOM_UTF8, "utf-8-sig"),
)


class ExportSource:
    """The text of one export; `lines()` may be called again and starts at the beginning each time.

    `num_bad_bytes` and `bad_lines` (numbers of the first lines that held some) describe the latest reading.
    """

    def __init__(self, path: Path, encoding: str | None = None, chat: str | None = None) -> None:
        """Look at what `path` is; raise ExportError when it cannot hold the text of an export.

        `encoding` overrides the detection; `chat` names one of several exports in a zip.
        """
        self.path = path
        self.num_bad_bytes = 0
        self.bad_lines: list[int] = []
        self.entry_name: str | None = None
        self._state = _file_state(path)
        with _open_regular(path) as file:
            start = file.read(16)
            if is_zip(path, file, start):
                self.entry_name = _choose_entry(file, chat)
            else:
                for magic, kind in OTHER_KINDS.items():
                    if start.startswith(magic):
                        raise ExportError(f"is {kind}, not an export; {EXPORT_AGAIN}")
        with self._open() as file:
            sample = _read_up_to(file, SNIFF_BYTES)
        self.encoding = _check_encoding(encoding) if encoding else guess_encoding(sample)
        head = _decode_sample(sample, self.encoding)
        if not head.strip(" \t\r\n\0\ufeff"):
            raise ExportError(f"is empty; {EXPORT_AGAIN}")
        self._has_bare_cr = "\r" in head and "\n" not in head

    def lines(self) -> Generator[str, None, None]:
        """Yield the lines without their end (LF or CRLF): nothing else ends a line, U+2028 and its like are text."""
        self.num_bad_bytes = 0
        self.bad_lines = []
        decoder = codecs.getincrementaldecoder(self.encoding)(errors="strict")
        num_lines = 0
        rest = ""
        with self._open() as file:
            is_last = False
            while not is_last:
                block = file.read(BLOCK_BYTES)
                is_last = not block
                try:
                    text = decoder.decode(block, is_last)
                except UnicodeError:
                    text = self._decode_damaged(decoder, block, is_last, num_lines + 1)
                if self._has_bare_cr:
                    text = text.replace("\r", "\n")
                text = rest + text
                complete, newline, rest = text.rpartition("\n")
                if newline:
                    if "\r" in complete:
                        complete = complete.replace("\r\n", "\n").removesuffix("\r")
                    lines = complete.split("\n")
                    num_lines += len(lines)
                    yield from lines
                if len(rest) > MAX_TEXT_CHARS:
                    raise ExportError(
                        f"line {num_lines + 1} is longer than {MAX_TEXT_CHARS:,} characters; {EXPORT_AGAIN}"
                    )
        if rest:
            yield rest.removesuffix("\r")

    def has_changed(self) -> bool:
        """Tell whether the file grew, shrank or was replaced since this object was made."""
        try:
            return _file_state(self.path) != self._state
        except ExportError:
            return True

    @contextmanager
    def _open(self) -> Iterator[BinaryIO]:
        with _open_regular(self.path) as file:
            if self.entry_name is None:
                yield file
            else:
                with _open_entry(file, self.entry_name) as entry:
                    yield entry

    def _decode_damaged(self, decoder: codecs.IncrementalDecoder, block: bytes, is_last: bool, line_number: int) -> str:
        """Decode `block` without its bad bytes, counting them."""
        decoder.errors = "surrogateescape" if self.encoding.startswith(("utf-8", "cp", "iso")) else "replace"
        try:
            text = decoder.decode(block, is_last)
        except UnicodeError as error:
            raise ExportError(f"cannot be read as {self.encoding}; name its encoding, such as utf-8") from error
        finally:
            decoder.errors = "strict"
        for number, line in enumerate(text.split("\n"), line_number):
            num_bad = len(BAD_CHARACTER_RE.findall(line))
            if num_bad:
                self.num_bad_bytes += num_bad
                self.bad_lines.append(number)
        del self.bad_lines[5:]
        return BAD_CHARACTER_RE.sub("", text)


BAD_CHARACTER_RE = re.compile("[\udc80-\udcff\ufffd]")


def find_exports(path: Path) -> list[Path]:
    """Return the exports to read for `path`: itself when it is a file, else those inside the folder, sorted.

    Below a folder, hidden files, `__MACOSX` and links to folders are left out, and so is every file that is no export
    (the notes and archives that were sent in the chat). Raises ExportError when a folder holds none.
    """
    if not path.is_dir():
        return [path]
    found = []
    for folder, folder_names, file_names in os.walk(path):
        folder_names[:] = sorted(name for name in folder_names if not name.startswith((".", "__MACOSX")))
        for name in sorted(file_names):
            if name.lower().endswith((".txt", ".zip")) and not name.startswith(".") and is_export(Path(folder, name)):
                found.append(Path(folder, name))
    if not found:
        raise ExportError(f"holds no WhatsApp export (.txt or .zip); {EXPORT_AGAIN}")
    return found


def is_export(path: Path) -> bool:
    """Tell whether the file begins like an export, or is a zip that holds at least one."""
    try:
        with _open_regular(path) as file:
            if is_zip(path, file, file.read(16)):
                file.seek(0)
                with _zip_errors(), zipfile.ZipFile(file) as archive:
                    return any(_is_export_entry(file, name) for name in _text_entries(archive))
            file.seek(0)
            return _looks_like_export(_read_up_to(file, SNIFF_BYTES))
    except (ExportError, OSError):
        return False


def is_zip(path: Path, file: BinaryIO, start: bytes) -> bool:
    """Tell a zip by its content; one with other bytes before it only under its own name."""
    if start.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return True
    return path.suffix.lower() == ".zip" and zipfile.is_zipfile(file)


def guess_encoding(sample: bytes) -> str:
    """Return the encoding of a file that begins with `sample`: UTF-8, or UTF-16 by its mark or its zero bytes.

    Raise ExportError for an 8-bit code page: which one, only its owner can know.
    """
    for mark, encoding in BYTE_ORDER_MARKS:
        if sample.startswith(mark):
            return encoding
    # Digits and punctuation of UTF-16 headers have a zero byte in every pair, always on the same side.
    pairs = len(sample[:4096]) // 2
    evens, odds = sample[0:4096:2].count(0), sample[1:4096:2].count(0)
    if pairs and odds > pairs / 10 and evens < odds / 20:
        return "utf-16-le"
    if pairs and evens > pairs / 10 and odds < evens / 20:
        return "utf-16-be"
    text = sample.decode("utf-8", "surrogateescape")
    num_bad = len(BAD_CHARACTER_RE.findall(text[:-1] if len(sample) == SNIFF_BYTES else text))
    num_good = len(text) - len(text.encode("ascii", "ignore")) - num_bad
    if num_bad > max(3, num_good):  # 3: a file cut inside its last character is still UTF-8
        raise ExportError(
            "is not UTF-8; save it as UTF-8, or name its encoding (for old Hebrew files: --encoding cp1255)"
        )
    return "utf-8"


def _decode_sample(sample: bytes, encoding: str) -> str:
    try:
        return codecs.getincrementaldecoder(encoding)(errors="replace").decode(sample)
    except UnicodeError as error:
        raise ExportError(f"cannot be read as {encoding}; name its encoding, such as utf-8") from error


def _check_encoding(encoding: str) -> str:
    try:
        codecs.getincrementaldecoder(encoding)
        "".encode(encoding)  # refuses hex, rot13 and the like, which are no encodings of text
    except (LookupError, UnicodeError, TypeError) as error:
        raise ExportError(f"there is no encoding called {encoding!r}; try utf-8, utf-16 or cp1255") from error
    return "utf-8-sig" if codecs.lookup(encoding).name == "utf-8" else encoding


def _file_state(path: Path) -> tuple[int, int, int]:
    try:
        state = path.stat()
    except OSError as error:
        raise ExportError(f"cannot be read: {error.strerror}; check the path") from error
    except ValueError as error:  # a NUL in the name
        raise ExportError("cannot be read: no such file; check the path") from error
    if stat.S_ISDIR(state.st_mode):
        raise ExportError("is a folder; name one of the exports in it")
    if not stat.S_ISREG(state.st_mode):
        raise ExportError("is not a regular file; name a .txt or .zip file")
    return state.st_size, state.st_mtime_ns, state.st_ino


@contextmanager
def _open_regular(path: Path) -> Iterator[BinaryIO]:
    _file_state(path)
    try:
        file = open(path, "rb")
    except OSError as error:
        raise ExportError(f"cannot be read: {error.strerror}; check the path and its permissions") from error
    with file:
        yield file


def _read_up_to(file: BinaryIO, num_bytes: int) -> bytes:
    parts = []
    while num_bytes > 0 and (part := file.read(num_bytes)):
        parts.append(part)
        num_bytes -= len(part)
    return b"".join(parts)


# ---- zip ----


@contextmanager
def _zip_errors() -> Iterator[None]:
    try:
        yield
    except ExportError:
        raise
    except ZIP_ERRORS as error:
        if "password" in str(error) or "encrypted" in str(error):
            raise ExportError("is protected by a password; unpack it and give the .txt") from error
        raise ExportError(f"is a damaged zip; {EXPORT_AGAIN}") from error


class _EntryReader(io.RawIOBase):
    """One entry of a zip, read in pieces; stops at a bomb by what was read, whatever the entry's header claims."""

    def __init__(self, entry: BinaryIO, packed_bytes: int) -> None:
        self._entry = entry
        self._packed_bytes = max(packed_bytes, 1)
        self._num_read = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]
        with _zip_errors():
            data = self._entry.read(len(buffer))
        self._num_read += len(data)
        is_inflated = self._num_read > MIN_BYTES_FOR_RATIO and self._num_read > MAX_RATIO * self._packed_bytes
        if is_inflated or self._num_read > MAX_UNZIPPED_BYTES:
            raise ExportError(f"holds a text too large for an export (a zip bomb?); {EXPORT_AGAIN}")
        buffer[: len(data)] = data
        return len(data)


@contextmanager
def _open_entry(file: BinaryIO, name: str) -> Iterator[BinaryIO]:
    with _zip_errors():
        archive = zipfile.ZipFile(file)
        info = archive.getinfo(name)
        if info.flag_bits & 1:
            raise ExportError("is protected by a password; unpack it and give the .txt")
        entry = archive.open(info)
    with archive, entry, io.BufferedReader(_EntryReader(entry, info.compress_size), BLOCK_BYTES) as reader:  # type: ignore[type-var]
        yield reader


def _text_entries(archive: zipfile.ZipFile) -> list[str]:
    """Return the names of the .txt files of the phone, without those a Mac adds."""
    names = []
    for name in archive.namelist():
        base = re.split(r"[/\\]", name)[-1]
        if base.lower().endswith(".txt") and not base.startswith("._") and "__MACOSX" not in name and name not in names:
            names.append(name)
    return names


def _choose_entry(file: BinaryIO, chat: str | None) -> str:
    with _zip_errors(), zipfile.ZipFile(file) as archive:
        all_names = archive.namelist()
        candidates = _text_entries(archive)
    if not candidates:
        raise ExportError(f"holds no .txt; {EXPORT_AGAIN}" + _listed(all_names))
    named = [name for name in candidates if name.split("/")[-1].lower() == "_chat.txt"]
    exports = named or [name for name in candidates if _is_export_entry(file, name)]
    if chat is not None:
        exact = [name for name in candidates if chat in (name, name.split("/")[-1], name.split("/")[-1][:-4])]
        chosen = exact or [name for name in exports if chat.casefold() in name.casefold()]
        if len(chosen) != 1:
            raise ExportError(f"holds {len(chosen)} chats of that name; choose one with --chat" + _listed(exports))
        return chosen[0]
    if len(exports) > 1:  # a text that someone sent in the chat may look like an export as well
        exports = [name for name in exports if "whatsapp" in name.casefold()] or exports
    if len(exports) > 1:
        raise ExportError(f"holds {len(exports)} chats; choose one with --chat NAME" + _listed(exports))
    if not exports and len(candidates) > 1:
        raise ExportError("holds no export among its .txt files" + f"; {EXPORT_AGAIN}" + _listed(candidates))
    return (exports or candidates)[0]


def _listed(names: list[str]) -> str:
    shown = "".join(f"\n  {name!r}" for name in names[:NUM_SHOWN_ENTRIES])
    return shown + (f"\n  and {len(names) - NUM_SHOWN_ENTRIES} more" if len(names) > NUM_SHOWN_ENTRIES else "")


def _is_export_entry(file: BinaryIO, name: str) -> bool:
    with _open_entry(file, name) as entry:
        return _looks_like_export(_read_up_to(entry, SNIFF_BYTES))


def _looks_like_export(sample: bytes) -> bool:
    try:
        text = _decode_sample(sample, guess_encoding(sample))
    except ExportError:
        return False
    return any(read_header(line) for line in re.split(r"\r?\n|\r", text))
