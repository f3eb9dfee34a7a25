"""The layout of `conversation.txt`: green bubbles on the right, blue bubbles on the left, captions, centred notes.

It looks the same in every editor, Hebrew and emoji included. A line with letters from right to left starts with a
left-to-right mark, because editors guess a line's direction from its letters, and its words stand in a bidi isolate, so
that their direction does not move the squares. Other lines have neither: vim shows these marks as `<200e>`.
Widths are screen columns, not characters. Writing the file is left to `conversation_log`.
"""

from __future__ import annotations

from collections.abc import Iterator
from unicodedata import bidirectional

from wcwidth import clip, iter_graphemes, wcswidth
from wcwidth.textwrap import SequenceTextWrapper

from common.text_safety import remove_unsafe_characters

# The published layout: 40 columns for the words and their padding, then the squares with their spaces.
LINE_COLUMNS = 46
WRAP_COLUMNS = 34  # six fewer than fit: a full line of the left and of the right bubble still differ
SQUARES = {"user": "🟩", "assistant": "🟦"}
DASHES_COLUMNS = 6  # on each side of a note two dashes and a space

LRM = "\N{LEFT-TO-RIGHT MARK}"
RLM = "\N{RIGHT-TO-LEFT MARK}"
FSI = "\N{FIRST STRONG ISOLATE}"
PDI = "\N{POP DIRECTIONAL ISOLATE}"


def render_bubble(role: str, text: str) -> str:
    """Return `text` as the lines of one bubble, each with its line break.

    Every line has its own squares, so a message of several lines cannot imitate the other person's turn.
    """
    square = SQUARES[role]
    lines = []
    for line in _wrapped(text):
        bubble = _directed(f"{square} ", line, f" {square}")  # measured whole: a line may begin with a mark
        pad = " " * (LINE_COLUMNS - wcswidth(bubble)) if role == "user" else ""
        lines.append(f"{_directed(f'{pad}{square} ', line, f' {square}')}\n")
    return "".join(lines)


def render_caption(role: str, name: str, time: str) -> str:
    """Return the line above the first bubble of a turn: who wrote it, and when."""
    shown_name = clip(_one_line(name), 0, LINE_COLUMNS // 2)
    pad = " " * (LINE_COLUMNS - wcswidth(f"{shown_name} · {time}")) if role == "user" else ""
    return f"{_directed(pad, shown_name, f' · {time}')}\n"


def render_note(text: str) -> str:
    """Return `text` centred between dashes, for what is not a message (a date, `last turn taken back`)."""
    lines = []
    for words in _evenly_wrapped(_one_line(text), LINE_COLUMNS - DASHES_COLUMNS):
        pad = " " * ((LINE_COLUMNS - DASHES_COLUMNS - wcswidth(words)) // 2)
        lines.append(f"{_directed(f'{pad}── ', words, ' ──')}\n")
    return "".join(lines)


def wrap_words(paragraph: str, columns: int) -> list[str]:
    """Return `paragraph` as lines of at most `columns`, broken between words; a word longer than a line, between letters."""
    return _Wrapper(columns, control_codes="ignore", break_on_hyphens=False).wrap(paragraph) or [""]


def _evenly_wrapped(paragraph: str, columns: int) -> list[str]:
    """Wrap into as few lines, of about the same length: else a last word, such as a time, stands for itself."""
    lines = wrap_words(paragraph, columns)
    while len(lines) > 1 and len(narrower := wrap_words(paragraph, columns - 1)) == len(lines):
        lines, columns = narrower, columns - 1
    return lines


class _Wrapper(SequenceTextWrapper):
    """As `wcwidth.wrap`, which measures the rest of a word again for each line, but in time linear in the longest word."""

    def _split(self, text: str) -> list[str]:
        return [piece for chunk in super()._split(text) for piece in self._pieces(chunk)]

    def _pieces(self, chunk: str) -> Iterator[str]:
        letters = list(iter_graphemes(chunk))
        if chunk.isspace():
            yield chunk[: self.width + 1]  # spaces wider than a line end it, and the rest of them is dropped
        elif sum(map(self._width, letters)) <= self.width:
            yield chunk
        else:
            yield from letters


def _wrapped(text: str) -> list[str]:
    lines = []
    for paragraph in remove_unsafe_characters(text).split("\n"):
        is_right_to_left = _is_right_to_left(paragraph)
        for line in wrap_words(paragraph, WRAP_COLUMNS):
            # A wrapped line may begin with a word of the other direction; the mark sets its paragraph's direction.
            mark = "" if _is_right_to_left(line) == is_right_to_left else RLM if is_right_to_left else LRM
            lines.append(mark + line)
    return lines


def _directed(before: str, words: str, after: str) -> str:
    if not any(bidirectional(character) in ("R", "AL", "AN") for character in words):
        return f"{before}{words}{after}"
    return f"{LRM}{before}{FSI}{words}{PDI}{after}"


def _is_right_to_left(text: str) -> bool:
    strong = (direction for character in text if (direction := bidirectional(character)) in ("L", "R", "AL"))
    return next(strong, "L") != "L"


def _one_line(text: str) -> str:
    return " ".join(remove_unsafe_characters(text).split())
