"""Text that was read in a wrong encoding and saved again -> the text as it was.

UTF-8 that a spreadsheet or an editor took for a Western code page becomes `×©×œ×•×` for four Hebrew letters; old Hebrew
files become `ùìåí`. Both can be undone unless characters were lost on the way.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

from export_file import EXPORT_AGAIN, ExportError

NUM_SAMPLED_LINES = 300
MIN_LINES = 3  # fewer may have been pasted into a chat
MIN_SHARE = 0.9  # of the lines with other letters than ASCII ones
MIN_WORDS = 10
MAX_ROUNDS = 3  # files are saved again and again

WESTERN = "a Western code page"
# Code pages that programs take UTF-8 for. The Western one as programs use it: where cp1252 has no character, that of Latin-1.
CODE_PAGES = {
    WESTERN: "cp1252",
    "the Hebrew code page": "cp1255",
    "the Cyrillic code page": "cp1251",
    "a Mac code page": "mac_roman",
    "a DOS code page": "cp437",
    "another DOS code page": "cp850",
    "the Hebrew DOS code page": "cp862",
}
_CP1252 = {bytes([byte]).decode("cp1252"): byte for byte in range(0x80, 0xA0) if byte not in b"\x81\x8d\x8f\x90\x9d"}
_TO_LATIN_1 = str.maketrans({character: chr(byte) for character, byte in _CP1252.items()})

# What two bytes of UTF-8 look like: ×© Ã© ð\x9f
PAIR_RE = re.compile(f"[\xc2-\xf4][\x80-\xbf{''.join(map(re.escape, _CP1252))}]|[×Ð-ÙØ]\ufffd")
HEBREW_AS_WESTERN_RE = re.compile("[à-ú]{2,}")
LETTERS_RE = re.compile(r"[^\W\d_]{2,}")


class Repair(NamedTuple):
    """How to undo the damage: encode in `code_page`, decode as `encoding`."""

    name: str  # of the code page, for people
    code_page: str
    encoding: str

    def apply(self, text: str) -> str:
        """Return the text as it was; lines that were never damaged stay."""
        whole = self._undo(text)
        if whole is not None:
            return whole
        return "\n".join([line if (undone := self._undo(line)) is None else undone for line in text.split("\n")])

    def _undo(self, text: str) -> str | None:
        try:
            return _encode(text, self.code_page).decode(self.encoding)
        except UnicodeError:
            return None


def find_repairs(sample: str) -> list[Repair]:
    """Return what undoes the damage of a file that begins with `sample`, in this order; mostly nothing.

    Raises ExportError when the damage cannot be undone.
    """
    repairs: list[Repair] = []
    while len(repairs) < MAX_ROUNDS and (repair := _find_repair(sample)):
        repairs.append(repair)
        sample = repair.apply(sample)
    return repairs


def _find_repair(sample: str) -> Repair | None:
    lines = [line for line in sample.split("\n") if not line.isascii()][:NUM_SAMPLED_LINES]
    if len(lines) < MIN_LINES:
        return None
    for name, code_page in CODE_PAGES.items():
        repair = Repair(name, code_page, "utf-8")
        num_undone = sum(repair._undo(line) not in (None, line) for line in lines)  # noqa: SLF001
        if num_undone == len(lines):
            return repair
        if code_page == "cp1252":
            num_broken = sum(repair._undo(line) is None and _looks_damaged(line) for line in lines)  # noqa: SLF001
            is_damaged = num_undone + num_broken >= max(MIN_LINES, MIN_SHARE * len(lines))
            if is_damaged and num_broken <= (1 - MIN_SHARE) * len(lines):
                return repair
            if is_damaged:
                raise ExportError(f"was read as {WESTERN} and saved again, and letters were lost; {EXPORT_AGAIN}")
        elif num_undone >= max(MIN_LINES, MIN_SHARE * len(lines)):
            return repair
    return Repair(WESTERN, "cp1252", "cp1255") if _is_hebrew_read_as_western(lines) else None


def _looks_damaged(line: str) -> bool:
    num_letters = sum(not character.isascii() for character in line)
    return 2 * len(PAIR_RE.findall(line)) >= num_letters / 2


def _is_hebrew_read_as_western(lines: Iterable[str]) -> bool:
    """Tell whether words consist of the letters à to ú alone, as no word of a Western language does."""
    words = [word for line in lines for word in LETTERS_RE.findall(line) if not word.isascii()]
    num_hebrew = sum(HEBREW_AS_WESTERN_RE.fullmatch(word) is not None for word in words)
    return num_hebrew >= max(MIN_WORDS, MIN_SHARE * len(words))


def _encode(text: str, code_page: str) -> bytes:
    return text.translate(_TO_LATIN_1).encode("latin-1") if code_page == "cp1252" else text.encode(code_page)
