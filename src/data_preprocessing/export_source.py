"""An export on disk (.txt, the phone's .zip, a folder of them) -> its lines of text, streamed.

Of a zip's entries and a folder's files, exports are those with a line that begins like a message. Opening files and zips
is left to `export_file`, encodings to `text_encoding`, what the lines mean to `whatsapp_export`.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import BinaryIO

from export_file import (
    EXPORT_AGAIN,
    UNPACK_ONCE,
    ExportError,
    base_name,
    file_state,
    is_zip,
    open_entry,
    open_file,
    open_zip,
    read_up_to,
    refuse_other_kinds,
    start_of,
    text_names,
)
from message_header import read_header
from mojibake import find_repairs
from text_encoding import BAD_BYTES, TextDecoder, checked_encoding, guess_encoding

__all__ = ["ExportError", "ExportSource", "find_exports", "is_export"]

BLOCK_BYTES = 1 << 16  # larger ones are no faster and cost memory
SNIFFED_BYTES = 1 << 18  # enough to detect the encoding, and whether a .txt is an export or a note sent in the chat

# The longest text WhatsApp sends has 65,536 characters. A longer one than this is no message, and would fill the memory.
MAX_TEXT_CHARS = 1 << 24

NUM_SHOWN_NAMES = 5
NUM_SHOWN_LINES = 5

CHAT_OF_IPHONE = "_chat.txt"


class ExportSource:
    """The text of one export. `num_bad_bytes` and `bad_lines` (the first line numbers) describe the latest reading."""

    def __init__(self, path: Path, encoding: str | None = None, chat: str | None = None) -> None:
        """Check what `path` is; raise ExportError when it cannot be an export.

        `encoding` overrides the detection; `chat` names one of several exports in a zip.
        """
        self.path = path
        self.num_bad_bytes = 0
        self.bad_lines: list[int] = []
        self._state = file_state(path)
        self._content: int | None = None  # a hash of all bytes, once they were read
        self._has_other_content = False
        self._entry_name: str | None = None
        with open_file(path) as file:
            refuse_other_kinds(start_of(file))
            if is_zip(path, file):
                with open_zip(file) as archive:
                    self._entry_name = _choose_entry(archive, chat)
        with self._open() as file:
            sample = read_up_to(file, SNIFFED_BYTES)
        if self._entry_name is not None:
            refuse_other_kinds(sample, is_inside_zip=True)
        self._encoding = checked_encoding(encoding) if encoding else guess_encoding(sample)
        start = TextDecoder(self._encoding).decode(sample, is_last=False)[0]
        if not start.strip(" \t\r\n\0\ufeff"):
            raise ExportError(f"is empty; {EXPORT_AGAIN}")
        self._has_bare_returns = "\r" in start and "\n" not in start
        self.repairs = find_repairs(start.replace("\r", "\n") if self._has_bare_returns else start)

    def lines(self) -> Generator[str, None, None]:
        """Yield the lines without their ends (LF or CRLF); each call starts at the first line.

        Nothing else ends a line: U+2028, U+0085, vertical tabs and form feeds are part of what people write.
        """
        with closing(self.blocks()) as blocks:
            for block in blocks:
                yield from block[:-1].split("\n")

    def blocks(self) -> Generator[str, None, None]:
        """Yield the same lines as blocks: texts of many whole lines, each ended by LF."""
        self.num_bad_bytes, self.bad_lines = 0, []
        decoder = TextDecoder(self._encoding)
        num_lines = num_open_chars = content = 0
        open_parts: list[str] = []  # of the line that goes on in the next block
        with self._open() as file:
            is_last = False
            while not is_last:
                block = file.read(BLOCK_BYTES)
                content = hash((content, block))  # of Python: three times as fast as sha256, and only for this process
                is_last = not block
                text, bad_places = decoder.decode(block, is_last)
                if bad_places:
                    self.num_bad_bytes = decoder.num_bad_bytes
                    numbers = dict.fromkeys([*self.bad_lines, *(num_lines + 1 + place for place in bad_places)])
                    self.bad_lines = list(numbers)[:NUM_SHOWN_LINES]
                if self._has_bare_returns:
                    text = text.replace("\r", "\n")
                complete, line_feed, rest = text.rpartition("\n")
                if line_feed:
                    complete = "".join([*open_parts, complete, line_feed])
                    open_parts, num_open_chars = [], 0
                    num_lines += complete.count("\n")
                    yield self._repaired(complete.replace("\r\n", "\n"))
                open_parts.append(rest)
                num_open_chars += len(rest)
                if num_open_chars > MAX_TEXT_CHARS:
                    raise ExportError(
                        f"line {num_lines + 1} is longer than {MAX_TEXT_CHARS:,} characters; {EXPORT_AGAIN}"
                    )
        if last_line := "".join(open_parts):
            yield self._repaired(last_line.removesuffix("\r") + "\n")
        self._has_other_content |= self._content not in (None, content)
        self._content = content

    def _repaired(self, text: str) -> str:
        for repair in self.repairs:
            text = repair.apply(text)
        return text

    def has_changed(self) -> bool:
        """Tell whether the file grew, shrank or was replaced since this object was made, or two readings found other bytes.

        The time of change alone does not tell: an editor or a copying program may restore it.
        """
        try:
            return self._has_other_content or file_state(self.path) != self._state
        except ExportError:
            return True

    @contextmanager
    def _open(self) -> Iterator[BinaryIO]:
        with open_file(self.path) as file:
            if self._entry_name is None:
                yield file
            else:
                with open_zip(file) as archive, open_entry(archive, self._entry_name) as entry:
                    yield entry


def find_exports(path: Path) -> list[Path]:
    """Return the exports to read for `path`: itself when it is no folder, else the exports below the folder, sorted.

    Hidden files, `__MACOSX`, linked folders and files that are no export (such as notes sent in a chat) are left out.
    Raises ExportError when none is left.
    """
    if not path.is_dir():
        return [path]
    found = []
    for folder, folder_names, file_names in os.walk(path):
        folder_names[:] = [name for name in folder_names if not name.startswith((".", "__MACOSX"))]
        for name in file_names:
            if name.lower().endswith((".txt", ".zip")) and not name.startswith(".") and is_export(Path(folder, name)):
                found.append(Path(folder, name))
    if not found:
        raise ExportError(f"holds no WhatsApp export (.txt or .zip); {EXPORT_AGAIN}")
    return sorted(found)


def is_export(path: Path) -> bool:
    """Tell whether the file begins like an export, or is a zip that holds one."""
    try:
        with open_file(path) as file:
            if is_zip(path, file):
                with open_zip(file) as archive:
                    names = text_names(archive.namelist())
                    # one that may hold exports in zips is refused later, and not passed over
                    return any(_is_export_entry(archive, name) for name in names) or _has_zips_of_chats(archive, path)
            return _has_header(file)
    except ExportError:
        return False


def _has_zips_of_chats(archive: zipfile.ZipFile, path: Path) -> bool:
    """Tell whether a zip holds no text, but zips that are chats by a name."""
    names = archive.namelist()
    zips = [name for name in names if name.lower().endswith(".zip")]
    return not text_names(names) and any("whatsapp" in name.casefold() for name in (path.name, *zips) if zips)


def _choose_entry(archive: zipfile.ZipFile, chat: str | None) -> str:
    """Return the name of the zip's entry that is the export."""
    name = _choose_name(archive, chat)
    entries = [info for info in archive.infolist() if info.filename == name]
    if len({(info.CRC, info.file_size) for info in entries}) > 1:
        raise ExportError(
            f"holds {len(entries)} different files called {base_name(name)!r}; {UNPACK_ONCE} and give the right one"
        )
    return name


def _choose_name(archive: zipfile.ZipFile, chat: str | None) -> str:
    all_names = archive.namelist()
    names = text_names(all_names)
    zips = [name for name in all_names if name.lower().endswith(".zip")]
    if not names and zips:
        raise ExportError(f"holds no .txt but {len(zips):,} zips; {UNPACK_ONCE} and give them{_listed(zips)}")
    if not names:
        raise ExportError(f"holds no .txt; {EXPORT_AGAIN}{_listed(all_names)}")
    exports = [name for name in names if base_name(name).lower() == CHAT_OF_IPHONE]
    exports = exports or [name for name in names if _is_export_entry(archive, name)]
    if chat is not None:
        chosen = [name for name in names if chat in (name, base_name(name), base_name(name)[: -len(".txt")])]
        chosen = chosen or [name for name in exports if chat.casefold() in name.casefold()]
        if len(chosen) != 1:
            num_chats = f"{len(chosen)} chats" if chosen else "no chat"
            raise ExportError(f"holds {num_chats} of that name; choose with --chat NAME{_listed(exports)}")
        return chosen[0]
    if len(exports) > 1:  # the others may be exports that were sent in the chat
        exports = [name for name in exports if "whatsapp" in base_name(name).casefold()] or exports
    if len(exports) > 1:
        raise ExportError(f"holds {len(exports)} chats; choose one with --chat NAME{_listed(exports)}")
    if not exports and len(names) > 1:
        raise ExportError(f"holds no export among its .txt files; {EXPORT_AGAIN}{_listed(names)}")
    return (exports or names)[0]


def _listed(names: list[str]) -> str:
    lines = [f"\n  {name!r}" for name in names[:NUM_SHOWN_NAMES]]
    num_more = len(names) - len(lines)
    return "".join(lines) + (f"\n  and {num_more:,} more" if num_more else "")


def _is_export_entry(archive: zipfile.ZipFile, name: str) -> bool:
    with open_entry(archive, name) as entry:
        return _has_header(entry)


def _has_header(file: BinaryIO) -> bool:
    sample = read_up_to(file, SNIFFED_BYTES)
    try:
        encoding = guess_encoding(sample)
    except ExportError:  # an 8-bit code page: the digits of a header are the same in all of them
        encoding = "latin-1"
    text = sample.decode(encoding, BAD_BYTES)
    return any(map(read_header, text.replace("\r", "\n").split("\n")))
