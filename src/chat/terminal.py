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
import stat
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from held_keys import holding_keys

from common.private_files import replacing
from common.script import counted, printable_lines
from common.text_safety import remove_unsafe_characters

if TYPE_CHECKING:
    from line_editor import LineEditor
    from turns import Messages

PROMPT = "🟩 "
HISTORY_LINES = 1_000
REPLY_MARK = "🟦 "
MARK_COLUMNS = 3  # of PROMPT and REPLY_MARK
NUM_EARLIER_LINES = 8  # shown of a conversation that continues
REMARKS = {"interrupted": "interrupted", "limit": "cut short", "loop": "stopped: it repeats itself"}

# Each command with its argument and what it does, in the order in which /help lists them.
COMMANDS = {
    "help": ("", "show this list"),
    "begin": ("", "let the imitated person write first, in a new conversation"),
    "undo": ("", "take back your last message and the reply to it"),
    "regenerate": ("", "another reply to your last message"),
    "better": ("TEXT", r"replace the last reply with TEXT, kept for the next training; \n begins another message"),
    "reset": ("", "begin a new conversation"),
    "swap": ("", "swap roles: your messages become the imitated person's, the bot's yours"),
    "with": ("[NAME]", "begin a new conversation with NAME; alone, list the known names"),
    "as": ("NAME", "in a group, write as its member NAME"),
    "set": ("NAME VALUE", "change one of the values of /params"),
    "params": ("", "show the sampling values, the seed and the device"),
    "stats": ("", "show the time and tokens of the last reply"),
    "save": ("FILE", "write this conversation to FILE"),
    "load": ("FILE", "continue a conversation saved with /save, or the last one of a .jsonl log"),
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
    lines.append(
        "Ctrl-C stops a reply, or clears the line you type. What you type during a reply comes at the next prompt."
    )
    return "\n".join(lines)


class TerminalInput:
    """Lines typed at a terminal. A paste of several lines is one line that contains line breaks.

    What is typed between two lines, during a reply, is not shown until the next one is read.
    """

    def __init__(self, history_path: Path | None) -> None:
        """`history_path` keeps the history between chats; None, or what is no file, keeps it for this chat only."""
        is_usable = history_path is not None and (history_path.is_file() or not history_path.exists())
        self._history_path = history_path = history_path if is_usable else None
        self._held = ExitStack()
        self._editor: LineEditor | None = None
        if is_dumb_terminal():  # it knows no escape sequences: lines as the terminal itself edits them
            return
        from line_editor import LineEditor

        self._editor = LineEditor(_read_history(history_path) if history_path else [])
        self._held.enter_context(holding_keys())

    def read(self) -> str | None:
        """Return the next line, None at the end of input (Ctrl-D).

        Ctrl-C clears the line; on an empty one, and always in a dumb terminal, it raises KeyboardInterrupt.
        """
        while True:
            previous_handler = signal.signal(signal.SIGINT, signal.default_int_handler)
            try:
                line = self._editor.read(PROMPT) if self._editor else input(PROMPT)
            except EOFError:
                return None
            except KeyboardInterrupt:
                if not self._editor or not self._editor.text:
                    raise
                show_notice("\nline cleared; Ctrl-C on an empty line leaves, /help lists the commands")
            else:
                if self._editor:
                    print(flush=True)  # the cursor stands behind the line
                    self._add_to_history(line)
                return line
            finally:
                signal.signal(signal.SIGINT, previous_handler)

    def close(self) -> None:
        """Leave the terminal as it was, and write the history (0600) for the next chat."""
        if self._editor is None:
            return
        with suppress(OSError):  # the window is closed
            self._editor.close()
        self._held.close()
        if self._history_path is None:
            return
        path = self._history_path.resolve()
        try:
            # What a link leads to keeps its mode.
            mode = stat.S_IMODE(path.stat().st_mode) if self._history_path.is_symlink() and path.exists() else 0o600
            with replacing(path) as file:
                os.fchmod(file.fileno(), mode)
                file.writelines(f"{line}\n" for line in self._editor.history[-HISTORY_LINES:])
        except OSError as error:
            show_notice(f"the history of typed lines was not written: {error.strerror}")

    def _add_to_history(self, line: str) -> None:
        entry = " ".join(line.split())  # the history file holds one entry a line
        if self._editor and entry and self._editor.history[-1:] != [entry]:
            self._editor.history.append(entry)


def is_dumb_terminal() -> bool:
    """Return whether the terminal understands no escape sequences."""
    return os.environ.get("TERM", "dumb") == "dumb"


def _read_history(path: Path) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []
    except OSError:
        return []
    return [remove_unsafe_characters(line) for line in lines[-HISTORY_LINES:]]


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

    def show_earlier(self, messages: Messages) -> None:
        """Show nothing: standard output carries the replies only."""

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

    def show_earlier(self, messages: Messages) -> None:
        """Show the last lines of a conversation that continues, as they were shown then."""
        lines = [(message["role"], line) for message in messages for line in message["content"].split("\n")]
        if len(lines) > NUM_EARLIER_LINES:
            print(f"... {counted(len(lines) - NUM_EARLIER_LINES, 'earlier line')}", flush=True)
        for role, line in lines[-NUM_EARLIER_LINES:]:
            self._show_line(PROMPT if role == "user" else REPLY_MARK, line)

    def _show_line(self, mark: str, text: str) -> None:
        print(f"{mark}{text}", flush=True)

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
        self._show_line("" if self._is_line_open else REPLY_MARK, text)
        self._is_line_open = False
        if remark:
            show_notice(f"[{remark}]")

    def _show_line(self, mark: str, text: str) -> None:
        from bidi import get_display
        from bubbles import wrap_words

        columns = max(20, shutil.get_terminal_size().columns - MARK_COLUMNS - 1)
        for number, line in enumerate(wrap_words(text, columns)):
            print(f"{' ' * MARK_COLUMNS if number else mark}{get_display(line)}", flush=True)


def show_notice(message: str) -> None:
    """Show a message that is not part of the conversation; what acts on a terminal is escaped."""
    print(printable_lines(message), file=sys.stderr, flush=True)


@contextmanager
def showing_progress(what: str) -> Iterator[None]:
    """Show that `what` is in progress: a spinner with seconds at a terminal, one line elsewhere.

    By hand: it is one call of unknown length, and tqdm redraws only between steps.
    """
    if not sys.stderr.isatty() or is_dumb_terminal():
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
        with holding_keys():
            yield
    finally:
        is_done.set()
        thread.join()
