"""The terminal side of the chat: reading lines, parsing commands, showing replies and notices.

Input is a terminal (with editing, history and pasted lines) or a pipe. Replies go to standard output, everything else
to standard error. Standard library only at import, because `--help` lists the commands.
Carrying out commands is left to `chat_session`, the layout of the log to `bubbles`.
"""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import NoReturn

from common.script import printable_lines

try:
    # Importing it is enough: `input` then edits lines, deletes whole letters, takes pastes and lines over 4,096 bytes.
    import readline
except ImportError:  # a Python built without it
    readline = None  # type: ignore[assignment]

PROMPT = "🟩 "
HISTORY_LINES = 1_000
REPLY_MARK = "🟦 "
REPLY_MARK_COLUMNS = 3
REMARKS = {"interrupted": "interrupted", "limit": "cut short", "loop": "stopped: it repeats itself"}

# Each command with its argument and what it does, in the order in which /help lists them.
COMMANDS = {
    "help": ("", "this list"),
    "undo": ("", "take back your last message and the reply to it"),
    "regenerate": ("", "another reply to your last message"),
    "reset": ("", "begin a new conversation"),
    "swap": ("", "swap roles: your messages become the imitated person's, the replies yours"),
    "set": ("NAME VALUE", "change a value of /params"),
    "params": ("", "the sampling values, seed and device"),
    "stats": ("", "what the last reply cost"),
    "save": ("FILE", "write this conversation to FILE"),
    "load": ("FILE", "continue a saved conversation (or another chat's .jsonl)"),
    "exit": ("", "leave; exit and Ctrl-D do the same"),
}


@dataclass(frozen=True)
class Command:
    """A typed command and its argument; the name may be unknown."""

    name: str
    argument: str


def read_line_as_command(line: str) -> Command | str:
    """Return `line` as a command, or as the text of a message.

    >>> read_line_as_command("//etc is a folder")
    '/etc is a folder'
    >>> read_line_as_command("/set top_k 5")
    Command(name='set', argument='top_k 5')
    """
    text = line.strip()
    if text == "exit":  # as published
        return Command("exit", "")
    if text.startswith("//"):
        return text[1:]
    if not text.startswith("/"):
        return text
    name, _space, argument = text[1:].partition(" ")
    return Command(name, argument.strip())


def help_text() -> str:
    """Return what /help shows."""
    heads = {name: f"/{name} {argument}".rstrip() for name, (argument, _what) in COMMANDS.items()}
    width = max(map(len, heads.values()))
    lines = [f"{heads[name]:{width}}  {what}" for name, (_argument, what) in COMMANDS.items()]
    lines.append(f"{'//words':{width}}  send words that begin with a slash")
    lines.append("Ctrl-C stops a reply, or clears the line you type.")
    return "\n".join(lines)


class TerminalInput:
    """Lines typed at a terminal. A paste of several lines is one line that contains line breaks."""

    def __init__(self, history_path: Path | None) -> None:
        """`history_path` keeps the history between chats; None, or what is no file, keeps it for this chat only."""
        is_usable = history_path is not None and (history_path.is_file() or not history_path.exists())
        self._history_path = history_path = history_path if is_usable else None
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
                show_notice("\nline cleared; Ctrl-C on an empty line leaves, /help lists the commands")
            else:
                self._add_to_history(line)
                return line
            finally:
                signal.signal(signal.SIGINT, previous_handler)

    def close(self) -> None:
        """Write the history (0600) for the next chat."""
        if readline is None or self._history_path is None:
            return
        readline.set_history_length(HISTORY_LINES)
        is_link = self._history_path.is_symlink() and self._history_path.exists()
        try:
            # What a link leads to keeps its mode.
            mode = self._history_path.stat().st_mode & 0o777 if is_link else 0o600
            readline.write_history_file(self._history_path)
            self._history_path.chmod(mode)
        except OSError as error:
            show_notice(f"the history of typed lines was not written: {error.strerror}")

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
        """Read standard input as UTF-8; invalid bytes are replaced."""
        if sys.stdin is not None:
            sys.stdin.reconfigure(encoding="utf-8", errors="replace")  # type: ignore[union-attr]

    def read(self) -> str | None:
        """Return the next line, None at the end of input."""
        line = sys.stdin.readline() if sys.stdin is not None else ""
        return line.removesuffix("\n") if line else None

    def close(self) -> None:
        """Nothing was opened."""


class OneMessage:
    """The message given by --prompt, as the only line."""

    def __init__(self, text: str) -> None:
        """Hold `text` until it is read."""
        self._lines = [text]

    def read(self) -> str | None:
        """Return the message, then None."""
        return self._lines.pop() if self._lines else None

    def close(self) -> None:
        """Nothing was opened."""


class PipedScreen:
    """For a pipe or a file: each finished bubble is a line, each turn ends with an empty line."""

    def begin_reply(self) -> None:
        """Show nothing yet."""

    def add_text(self, text: str) -> None:
        """Show nothing: the line is written when it is finished."""

    def end_bubble(self, text: str, remark: str | None) -> None:
        """Write one finished bubble as a line."""
        print(text, flush=True)
        if remark:
            show_notice(remark)

    def end_reply(self, num_bubbles: int) -> None:
        """End the turn with an empty line."""
        if num_bubbles == 0:
            show_notice("(no reply)")
        print(flush=True)


class TerminalScreen:
    """For a terminal: text as it is generated, in logical order (the terminal reorders Hebrew)."""

    def __init__(self) -> None:
        """Begin with nothing shown."""
        self._is_line_open = False

    def begin_reply(self) -> None:
        """Show the mark of the reply."""
        self._open_line()

    def add_text(self, text: str) -> None:
        """Show the next piece of the current bubble."""
        self._open_line()
        print(text, end="", flush=True)

    def end_bubble(self, text: str, remark: str | None) -> None:
        """End the line of the bubble."""
        print(f" [{remark}]" if remark else "", flush=True)
        self._is_line_open = False

    def end_reply(self, num_bubbles: int) -> None:
        """Move the cursor to the start of a line."""
        if num_bubbles == 0:
            print("(no reply)", flush=True)
        elif self._is_line_open:
            print(flush=True)
        self._is_line_open = False

    def _open_line(self) -> None:
        if not self._is_line_open:
            print(REPLY_MARK, end="", flush=True)
            self._is_line_open = True


class VisualScreen(TerminalScreen):
    """For a terminal that does not reorder right-to-left text: finished lines, reordered here for display only."""

    def add_text(self, text: str) -> None:
        """Show nothing: only a whole line can be reordered."""

    def end_bubble(self, text: str, remark: str | None) -> None:
        """Wrap the bubble to the terminal's width and show each line in visual order."""
        from bidi import get_display
        from wcwidth import wrap

        columns = max(20, shutil.get_terminal_size().columns - REPLY_MARK_COLUMNS - 1)
        for number, line in enumerate(wrap(text, columns, control_codes="ignore", propagate_sgr=False) or [""]):
            mark = " " * REPLY_MARK_COLUMNS if number else "" if self._is_line_open else REPLY_MARK
            print(f"{mark}{get_display(line)}", flush=True)
        self._is_line_open = False
        if remark:
            show_notice(f"[{remark}]")


def show_notice(message: str) -> None:
    """Show a message that is not part of the conversation; what acts on a terminal is escaped."""
    print(printable_lines(message), file=sys.stderr, flush=True)


@contextmanager
def showing_progress(what: str) -> Iterator[None]:
    """Show that `what` is in progress: a spinner with seconds at a terminal, one line elsewhere.

    By hand: it is one call of unknown length, and tqdm redraws only between steps.
    """
    if not sys.stderr.isatty() or os.environ.get("TERM") == "dumb":
        show_notice(f"{what} ...")
        yield
        return
    is_done = threading.Event()

    def spin() -> None:
        for seconds, sign in zip(itertools.count(0, 0.1), itertools.cycle("⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"), strict=False):
            print(f"\r{sign} {what}, {seconds:.0f} s ", end="", file=sys.stderr, flush=True)
            if is_done.wait(0.1):
                break
        print("\r" + " " * (len(what) + 12) + "\r", end="", file=sys.stderr, flush=True)

    thread = threading.Thread(target=spin, daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_done.set()
        thread.join()
