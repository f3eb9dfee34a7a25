"""An export on disk (.txt, the phone's .zip, a folder of them) -> its lines of text, streamed.

Of a zip's entries and a folder's files, exports are those with a line that begins like a message. Opening files and zips
is left to `export_file`, encodings to `text_encoding`, what the lines mean to `whatsapp_export`.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import BinaryIO

from export_file import (
    EXPORT_AGAIN,
    ExportError,
    base_name,
    entry_names,
    file_state,
    is_zip,
    open_entry,
    open_file,
    read_up_to,
    refuse_other_kinds,
    text_names,
)
from message_header import read_header
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
        self._entry_name: str | None = None
        with open_file(path) as file:
            refuse_other_kinds(file)
            if is_zip(path, file):
                self._entry_name = _choose_entry(file, chat)
        with self._open() as file:
            sample = read_up_to(file, SNIFFED_BYTES)
        self._encoding = checked_encoding(encoding) if encoding else guess_encoding(sample)
        start = TextDecoder(self._encoding).decode(sample, is_last=False)[0]
        if not start.strip(" \t\r\n\0\ufeff"):
            raise ExportError(f"is empty; {EXPORT_AGAIN}")
        self._has_bare_returns = "\r" in start and "\n" not in start

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
        num_lines = num_open_chars = 0
        open_parts: list[str] = []  # of the line that goes on in the next block
        with self._open() as file:
            is_last = False
            while not is_last:
                block = file.read(BLOCK_BYTES)
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
                    yield complete.replace("\r\n", "\n")
                open_parts.append(rest)
                num_open_chars += len(rest)
                if num_open_chars > MAX_TEXT_CHARS:
                    raise ExportError(
                        f"line {num_lines + 1} is longer than {MAX_TEXT_CHARS:,} characters; {EXPORT_AGAIN}"
                    )
        if last_line := "".join(open_parts):
            yield last_line.removesuffix("\r") + "\n"

    def has_changed(self) -> bool:
        """Tell whether the file grew, shrank or was replaced since this object was made."""
        try:
            return file_state(self.path) != self._state
        except ExportError:
            return True

    @contextmanager
    def _open(self) -> Iterator[BinaryIO]:
        with open_file(self.path) as file:
            if self._entry_name is None:
                yield file
            else:
                with open_entry(file, self._entry_name) as entry:
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
                return any(_is_export_entry(file, name) for name in text_names(entry_names(file)))
            return _has_header(file)
    except ExportError:
        return False


def _choose_entry(file: BinaryIO, chat: str | None) -> str:
    """Return the name of the zip's entry that is the export."""
    all_names = entry_names(file)
    names = text_names(all_names)
    if not names:
        raise ExportError(f"holds no .txt; {EXPORT_AGAIN}{_listed(all_names)}")
    exports = [name for name in names if base_name(name).lower() == CHAT_OF_IPHONE]
    exports = exports or [name for name in names if _is_export_entry(file, name)]
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


def _is_export_entry(file: BinaryIO, name: str) -> bool:
    with open_entry(file, name) as entry:
        return _has_header(entry)


def _has_header(file: BinaryIO) -> bool:
    sample = read_up_to(file, SNIFFED_BYTES)
    try:
        encoding = guess_encoding(sample)
    except ExportError:  # an 8-bit code page: the digits of a header are the same in all of them
        encoding = "latin-1"
    text = sample.decode(encoding, BAD_BYTES)
    return any(map(read_header, text.replace("\r", "\n").split("\n")))
