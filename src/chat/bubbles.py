"""How a conversation looks in `conversation.txt`: right-aligned green bubbles, left-aligned blue ones, centred notes.

Right in every editor, Hebrew and emoji included: each line starts with a left-to-right mark, so that sides stay sides
where an editor guesses a line's direction from its letters; the words stand in an isolate, so that their direction
never moves the squares; widths are columns on the screen, not characters. It leaves the file itself to others.
"""

from __future__ import annotations

from unicodedata import bidirectional

from wcwidth import wcswidth, wrap

from common.text_safety import remove_unsafe_characters

# The published layout: 40 columns for the words and their padding, then the squares with their spaces.
LINE_COLUMNS = 46
WRAP_COLUMNS = 34  # leaves six columns that tell the sides apart even where a bubble is full
SQUARES = {"user": "🟩", "assistant": "🟦"}
SQUARES_COLUMNS = 6  # a square (2) and a space on each side

LRM = "\N{LEFT-TO-RIGHT MARK}"
RLM = "\N{RIGHT-TO-LEFT MARK}"
FSI = "\N{FIRST STRONG ISOLATE}"
PDI = "\N{POP DIRECTIONAL ISOLATE}"


def render_bubble(role: str, text: str) -> str:
    """Return `text` as the lines of one bubble, each with its line break.

    Every line stands between squares of its own, so a message of several lines cannot pass for another's turn.
    """
    square = SQUARES[role]
    lines = []
    for line in _wrapped(text):
        pad = " " * (LINE_COLUMNS - SQUARES_COLUMNS - wcswidth(line)) if role == "user" else ""
        lines.append(f"{LRM}{pad}{square} {FSI}{line}{PDI} {square}\n")
    return "".join(lines)


def render_note(text: str) -> str:
    """Return a line that is nobody's words (a date, `taken back`), centred between dashes."""
    note = f"── {_one_line(text)} ──"
    return f"{LRM}{' ' * max(0, (LINE_COLUMNS - wcswidth(note)) // 2)}{note}\n"


def _wrapped(text: str) -> list[str]:
    lines = []
    for paragraph in remove_unsafe_characters(text).split("\n"):
        is_right_to_left = _is_right_to_left(paragraph)
        for line in wrap(
            paragraph, WRAP_COLUMNS, control_codes="ignore", propagate_sgr=False, break_on_hyphens=False
        ) or [""]:
            # A later line may begin with a word of the other direction; the mark lends it that of its paragraph.
            mark = "" if _is_right_to_left(line) == is_right_to_left else RLM if is_right_to_left else LRM
            lines.append(mark + line)
    return lines


def _is_right_to_left(text: str) -> bool:
    strong = (direction for character in text if (direction := bidirectional(character)) in ("L", "R", "AL"))
    return next(strong, "L") != "L"


def _one_line(text: str) -> str:
    return " ".join(remove_unsafe_characters(text).split())
