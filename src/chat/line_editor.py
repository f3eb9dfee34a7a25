"""One line typed at a terminal. Arrows and Backspace move over whole letters: a family, a flag, a letter with its points.

By hand, because neither GNU readline nor prompt_toolkit 3.0.53 knows letters of several code points, and both count the
columns that they take. Terminals disagree about these: a hand with a skin tone takes two columns in some and four in
tmux 3.3a. So no column is counted here: a row is broken before it could be full in any terminal, and the cursor is
placed by writing its row again up to it.
What a line means is left to `terminal`, the terminal's mode to `held_keys`.
"""

from __future__ import annotations

import codecs
import os
import re
import select
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from wcwidth import grapheme_boundary_before, iter_graphemes, wcwidth, width

from common.text_safety import remove_unsafe_characters

PASTE_ON, PASTE_OFF = "\x1b[?2004h", "\x1b[?2004l"  # a paste then arrives between these two marks:
PASTE_BEGIN, PASTE_END = "\x1b[200~", "\x1b[201~"
HIDE_CURSOR, SHOW_CURSOR, CLEAR_BELOW, CLEAR_SCREEN = "\x1b[?25l", "\x1b[?25h", "\x1b[J", "\x1b[2J\x1b[H"

# One key: text, an escape sequence as terminals send them (`\x1b[1;5D`, `\x1bOA`, `\x1bb`), or a control character.
# Esc before another sequence is a key of its own, which does nothing.
KEY_RE = re.compile(
    r"[^\x00-\x1f\x7f]+ | \x1b\[[0-?]*[ -/]*[@-~] | \x1bO. | \x1b[^\[O\x1b] | \x1b(?=\x1b) | [^\x1b]",
    re.VERBOSE | re.DOTALL,
)
KEY_SEQUENCE_RE = re.compile(r"\x1b[\[O]")
NEXT_WORD_RE = re.compile(r"\s*\S+|\s+")

# What each key does: a method of EditedLine.
KEYS = {
    name: action
    for action, names in {
        "move_left": ("\x1b[D", "\x1bOD", "\x02"),
        "move_right": ("\x1b[C", "\x1bOC", "\x06"),
        "move_word_left": ("\x1b[1;5D", "\x1b[1;3D", "\x1bb"),
        "move_word_right": ("\x1b[1;5C", "\x1b[1;3C", "\x1bf"),
        "move_to_start": ("\x1b[H", "\x1bOH", "\x1b[1~", "\x1b[7~", "\x01"),
        "move_to_end": ("\x1b[F", "\x1bOF", "\x1b[4~", "\x1b[8~", "\x05"),
        "delete_left": ("\x7f", "\x08"),
        "delete_right": ("\x1b[3~", "\x04"),
        "cut_word_left": ("\x17", "\x1b\x7f", "\x1b\x08"),
        "cut_to_start": ("\x15",),
        "cut_to_end": ("\x0b",),
        "put_back": ("\x19",),
    }.items()
    for name in names
}
ENTER_KEYS = ("\r", "\n")
OLDER_KEYS, NEWER_KEYS = ("\x1b[A", "\x1bOA", "\x10"), ("\x1b[B", "\x1bOB", "\x0e")
END_OF_INPUT_KEY = "\x04"
CLEAR_SCREEN_KEY = "\x0c"


class EditedLine:
    """A text and a cursor in it, which always stands between two letters."""

    def __init__(self, text: str = "") -> None:
        """Begin with `text`, the cursor behind it."""
        self.text = text
        self.cursor = len(text)
        self._cut = ""

    def insert(self, text: str) -> None:
        """Insert `text` before the cursor."""
        self._replace(self.cursor, self.cursor, text)

    def move_left(self) -> None:
        """Move over one letter."""
        self.cursor = self._previous()

    def move_right(self) -> None:
        """Move over one letter."""
        self.cursor = self._next()

    def move_word_left(self) -> None:
        """Move to the beginning of a word."""
        self.cursor = self._word_start()

    def move_word_right(self) -> None:
        """Move to the end of a word."""
        word = NEXT_WORD_RE.match(self.text, self.cursor)
        self._move_to(word.end() if word else self.cursor)

    def move_to_start(self) -> None:
        """Move before the first letter."""
        self.cursor = 0

    def move_to_end(self) -> None:
        """Move behind the last letter."""
        self.cursor = len(self.text)

    def delete_left(self) -> None:
        """Delete the letter before the cursor."""
        self._replace(self._previous(), self.cursor, "")

    def delete_right(self) -> None:
        """Delete the letter behind the cursor."""
        self._replace(self.cursor, self._next(), "")

    def cut_word_left(self) -> None:
        """Delete the word before the cursor; `put_back` inserts it."""
        self._cut_out(self._word_start(), self.cursor)

    def cut_to_start(self) -> None:
        """Delete everything before the cursor; `put_back` inserts it."""
        self._cut_out(0, self.cursor)

    def cut_to_end(self) -> None:
        """Delete everything behind the cursor; `put_back` inserts it."""
        self._cut_out(self.cursor, len(self.text))

    def put_back(self) -> None:
        """Insert what was cut last."""
        self.insert(self._cut)

    def _previous(self) -> int:
        return grapheme_boundary_before(self.text, self.cursor) if self.cursor else 0

    def _next(self) -> int:
        return self.cursor + len(next(iter_graphemes(self.text, self.cursor), ""))

    def _word_start(self) -> int:
        before = self.text[: self.cursor].rstrip()
        words = before.split()
        start = len(before) - len(words[-1]) if words else 0
        return grapheme_boundary_before(self.text, start + 1) if start else 0  # a blank and a joiner are one letter

    def _cut_out(self, start: int, end: int) -> None:
        self._cut = self.text[start:end]
        self._replace(start, end, "")

    def _replace(self, start: int, end: int, text: str) -> None:
        self.text = self.text[:start] + text + self.text[end:]
        self._move_to(start + len(text))

    def _move_to(self, position: int) -> None:
        """Move to `position`, or behind the letter that it lies in: a joiner or a mark may have made one of two."""
        end = 0
        for letter in iter_graphemes(self.text):
            if end >= position:
                break
            end += len(letter)
        self.cursor = end


class LineEditor:
    """Reads lines from the terminal, with the history of earlier ones."""

    def __init__(self, history: Sequence[str] = ()) -> None:
        """`history`: earlier lines, the oldest first."""
        self.history = list(history)
        self._typed = ""  # keys that were read and are not processed yet
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._line = EditedLine()

    @property
    def text(self) -> str:
        """The line as it stands: after an interruption, what had been typed."""
        return self._line.text

    def read(self, prompt: str) -> str:
        """Return the next line without its end. Raises EOFError at the end of input, or for Ctrl-D on an empty line."""
        self._line = EditedLine()
        recalled = [*self.history, ""]
        age = len(recalled) - 1
        drawing = Drawing(prompt)
        with _waking_on_signals() as wakeup:
            try:
                _write(PASTE_ON)
                while True:
                    key = self._next_key(wakeup, drawing)
                    if key in ENTER_KEYS:
                        return self._line.text
                    if key == END_OF_INPUT_KEY and not self._line.text:
                        raise EOFError
                    if key in OLDER_KEYS or key in NEWER_KEYS:
                        recalled[age] = self._line.text
                        age = max(0, age - 1) if key in OLDER_KEYS else min(len(recalled) - 1, age + 1)
                        self._line = EditedLine(recalled[age])
                    elif key == CLEAR_SCREEN_KEY:
                        drawing.begin_at(CLEAR_SCREEN)
                    elif key in KEYS:
                        getattr(self._line, KEYS[key])()
                    elif key.startswith(PASTE_BEGIN):
                        self._line.insert(_clean(key.removeprefix(PASTE_BEGIN).removesuffix(PASTE_END)))
                    elif not KEY_SEQUENCE_RE.match(key):
                        self._line.insert(_clean(key).replace("\t", ""))
            finally:
                with suppress(OSError):  # the window is closed
                    drawing.leave(self._line)

    def close(self) -> None:
        """Leave the terminal as it was."""
        _write(PASTE_OFF)

    def _next_key(self, wakeup: int, drawing: Drawing) -> str:
        while (key := self._take_key()) is None:
            drawing.draw(self._line)
            terminal = sys.stdin.fileno()
            ready, _, _ = select.select([terminal, wakeup], [], [])
            signals = os.read(wakeup, 4096) if wakeup in ready else b""
            if signal.SIGCONT in signals:
                # Other programs have written to the screen since, and a shell takes pastes otherwise.
                drawing.begin_at(f"{PASTE_ON}\r")
            elif signal.SIGWINCH in signals:
                drawing.redraw(self._line)
            if terminal in ready:
                try:
                    data = os.read(terminal, 65536)
                except OSError:  # the window is closed
                    data = b""
                if not data:
                    raise EOFError
                self._typed += self._decoder.decode(data)
        return key

    def _take_key(self) -> str | None:
        """Return the next key, or a whole paste; None when more has to be read first."""
        if self._typed.startswith(PASTE_BEGIN):
            end = self._typed.find(PASTE_END)
            length = end + len(PASTE_END) if end >= 0 else 0
        else:
            key = KEY_RE.match(self._typed)
            length = key.end() if key else 0
        taken, self._typed = self._typed[:length], self._typed[length:]
        return taken or None


class Drawing:
    """What stands on the screen of a line: rows, the cursor in one of them."""

    def __init__(self, prompt: str) -> None:
        """Nothing is shown yet; the cursor is at the start of a row."""
        self._prompt = prompt
        self._rows = [""]
        self._cursor_row = 0
        self._is_cursor_at_end = True

    def draw(self, line: EditedLine) -> None:
        """Show `line`: the rows that fit the screen, around its cursor."""
        self._draw(line, (os.get_terminal_size(sys.stdout.fileno()).lines or 24) - 1)

    def redraw(self, line: EditedLine) -> None:
        """Draw after a resize: in place where no row can have been wrapped, else below, so that nothing is overwritten."""
        widest = max(sum(map(_most_columns, iter_graphemes(row))) for row in self._rows)
        if widest >= _num_columns():
            _write("\n" * (len(self._rows) - self._cursor_row))
            self.begin_at("")
        self._is_cursor_at_end = False
        self.draw(line)

    def begin_at(self, move: str) -> None:
        """Move the cursor by `move` to a place where nothing of the line stands."""
        _write(move)
        self._rows, self._cursor_row, self._is_cursor_at_end = [""], 0, True

    def leave(self, line: EditedLine) -> None:
        """Show all rows and move the cursor behind the last one."""
        line.move_to_end()
        self._draw(line, sys.maxsize)

    def _draw(self, line: EditedLine, num_rows: int) -> None:
        rows, cursor_row, before_cursor = lay_out(self._prompt, line, _num_columns())
        first = max(0, cursor_row - max(1, num_rows) + 1)
        rows = rows[first : first + max(1, num_rows)]
        cursor_row -= first
        is_at_end = line.cursor == len(line.text)
        is_continued = rows[:-1] == self._rows[:-1] and rows[-1].startswith(self._rows[-1])
        if is_at_end and self._is_cursor_at_end and is_continued:
            _write(rows[-1].removeprefix(self._rows[-1]))
        else:
            back = "" if is_at_end else f"{_up(len(rows) - 1 - cursor_row)}\r{before_cursor}"
            whole = "\n".join(rows)
            _write(f"{HIDE_CURSOR}{_up(self._cursor_row)}\r{CLEAR_BELOW}{whole}{back}{SHOW_CURSOR}")
        self._rows, self._cursor_row, self._is_cursor_at_end = rows, cursor_row, is_at_end


def lay_out(prompt: str, line: EditedLine, columns: int) -> tuple[list[str], int, str]:
    """Return the rows that show `prompt` and `line`, the cursor's row, and what stands before the cursor in it.

    No terminal wraps one of them: each letter counts as wide as any terminal draws it.
    """
    indent = " " * width(prompt)
    rows, used = [prompt], len(indent)
    cursor_row, before_cursor = 0, prompt
    position = 0
    for letter in iter_graphemes(line.text):
        num_columns = _most_columns(letter)
        if letter == "\n" or used + num_columns >= columns > len(indent) + num_columns:
            rows.append(indent)
            used = len(indent)
        if letter != "\n":
            rows[-1] += letter.replace("\t", " ")
            used += num_columns
        position += len(letter)
        if position == line.cursor:
            cursor_row, before_cursor = len(rows) - 1, rows[-1]
    return rows, cursor_row, before_cursor


def _most_columns(letter: str) -> int:
    """Return how many columns `letter` takes in the terminal that draws it widest: each code point by itself, or more."""
    return max(sum(max(0, wcwidth(character)) for character in letter), width(letter, control_codes="ignore"), 1)


def _clean(text: str) -> str:
    return remove_unsafe_characters(text.replace("\r\n", "\n").replace("\r", "\n"))


def _num_columns() -> int:
    return os.get_terminal_size(sys.stdout.fileno()).columns or 80  # 0: a terminal that does not know


def _up(num_rows: int) -> str:
    return f"\x1b[{num_rows}A" if num_rows else ""


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


@contextmanager
def _waking_on_signals() -> Iterator[int]:
    """Within the block, the returned file has a byte to read for each signal that came: its number."""
    wakeup, written = os.pipe()
    os.set_blocking(written, False)
    previous_file = signal.set_wakeup_fd(written, warn_on_full_buffer=False)
    previous_handler = signal.signal(signal.SIGWINCH, lambda _signal_number, _frame: None)
    try:
        yield wakeup
    finally:
        signal.signal(signal.SIGWINCH, previous_handler)
        signal.set_wakeup_fd(previous_file)
        os.close(wakeup)
        os.close(written)
