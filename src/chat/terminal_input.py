"""Reading what the user types: a terminal with editing, history and pasted lines, or piped lines.

It leaves what a line means to `chat_commands`.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import NoReturn

try:
    # Its mere import gives `input` editing, and lines beyond 4,096 bytes, whole letters when deleting, whole pastes.
    import readline
except ImportError:  # a Python built without it
    readline = None  # type: ignore[assignment]

PROMPT = "🟩 "
HISTORY_LINES = 1_000


class TerminalInput:
    """Lines typed at a terminal. A paste of several lines is one line with line breaks in it."""

    def __init__(self, history_path: Path | None, tell: Callable[[str], None]) -> None:
        """`history_path` is where the history of earlier chats lies, None for one that ends with this chat."""
        self._history_path = history_path
        self._tell = tell
        self._line_at_interrupt = ""
        if readline is None:
            return
        readline.set_auto_history(False)
        readline.parse_and_bind("set enable-bracketed-paste on")
        if history_path is not None:
            with suppress(OSError):
                readline.read_history_file(history_path)

    def read(self) -> str | None:
        """Return the next line, None at the end of input (Ctrl-D).

        Ctrl-C clears the line; on an empty one it raises KeyboardInterrupt.
        """
        while True:
            previous_handler = signal.signal(signal.SIGINT, self._interrupt)
            try:
                line = input(PROMPT)
            except EOFError:
                return None
            except KeyboardInterrupt:
                if not self._line_at_interrupt:
                    raise
                self._tell("\nline cleared; Ctrl-C on an empty line leaves, /help shows what else there is")
            else:
                self._add_to_history(line)
                return line
            finally:
                signal.signal(signal.SIGINT, previous_handler)

    def close(self) -> None:
        """Write the history, private, for the next chat."""
        if readline is None or self._history_path is None:
            return
        readline.set_history_length(HISTORY_LINES)
        try:
            readline.write_history_file(self._history_path)
            self._history_path.chmod(0o600)
        except OSError as error:
            self._tell(f"the history of typed lines was not written: {error.strerror}")

    def _interrupt(self, _signal_number: int, _frame: FrameType | None) -> NoReturn:
        self._line_at_interrupt = readline.get_line_buffer() if readline is not None else ""
        raise KeyboardInterrupt

    def _add_to_history(self, line: str) -> None:
        entry = " ".join(line.split())  # the history file holds one entry a line
        if readline is not None and entry:
            readline.add_history(entry)


class PipedInput:
    """Lines from a pipe or a file, each one a turn."""

    def __init__(self) -> None:
        """Take standard input; bytes that are no UTF-8 are replaced."""
        if sys.stdin is not None:
            sys.stdin.reconfigure(encoding="utf-8", errors="replace")  # type: ignore[union-attr]

    def read(self) -> str | None:
        """Return the next line, None at the end of input."""
        line = sys.stdin.readline() if sys.stdin is not None else ""
        return line.removesuffix("\n") if line else None

    def close(self) -> None:
        """Nothing was opened."""


class OneMessage:
    """A message given on the command line, as the only line there is."""

    def __init__(self, text: str) -> None:
        """Hold `text` until it is read."""
        self._lines = [text]

    def read(self) -> str | None:
        """Return the message, then None."""
        return self._lines.pop() if self._lines else None

    def close(self) -> None:
        """Nothing was opened."""
