"""What the chat shows: the reply on standard output, everything else on standard error.

At a terminal the reply streams behind a blue square; in a pipe each finished bubble is a line and each turn ends with an
empty one. It leaves the log's layout to `bubbles`.
"""

from __future__ import annotations

import itertools
import os
import shutil
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

REPLY_MARK = "🟦 "
REPLY_MARK_COLUMNS = 3
REMARKS = {"interrupted": "interrupted", "limit": "cut short", "loop": "stopped: it repeats itself"}


class PipedScreen:
    """For a pipe or a file: whole lines, nothing but what the reply says."""

    def begin_reply(self) -> None:
        """Nothing to show yet."""

    def add_text(self, text: str) -> None:
        """Parts of a line wait until it is whole."""

    def end_bubble(self, text: str, remark: str | None) -> None:
        """Write one finished bubble as a line."""
        print(text, flush=True)
        if remark:
            tell(remark)

    def end_reply(self, num_bubbles: int) -> None:
        """Close the turn with an empty line."""
        if num_bubbles == 0:
            tell("(no reply)")
        print(flush=True)


class TerminalScreen:
    """For a terminal: characters as they come, in logical order (the terminal turns Hebrew itself)."""

    def __init__(self) -> None:
        """Begin with nothing shown."""
        self._is_line_open = False

    def begin_reply(self) -> None:
        """Show at once whose turn it is."""
        self._open_line()

    def add_text(self, text: str) -> None:
        """Show a piece of the bubble that is being written."""
        self._open_line()
        print(text, end="", flush=True)

    def end_bubble(self, text: str, remark: str | None) -> None:
        """End the line of the bubble."""
        print(f" [{remark}]" if remark else "", flush=True)
        self._is_line_open = False

    def end_reply(self, num_bubbles: int) -> None:
        """Leave the cursor at the start of a line."""
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
    """For a terminal that cannot turn right-to-left text: finished lines, turned here, for the eye alone."""

    def add_text(self, text: str) -> None:
        """A line can be turned only when it is whole."""

    def end_bubble(self, text: str, remark: str | None) -> None:
        """Wrap the bubble to the terminal and show each line in the order of the eye."""
        from bidi import get_display
        from wcwidth import wrap

        columns = max(20, shutil.get_terminal_size().columns - REPLY_MARK_COLUMNS - 1)
        for number, line in enumerate(wrap(text, columns, control_codes="ignore", propagate_sgr=False) or [""]):
            mark = " " * REPLY_MARK_COLUMNS if number else "" if self._is_line_open else REPLY_MARK
            print(f"{mark}{get_display(line)}", flush=True)
        self._is_line_open = False
        if remark:
            tell(f"[{remark}]")


def tell(message: str) -> None:
    """Show something that is no part of the conversation."""
    print(message, file=sys.stderr, flush=True)


@contextmanager
def showing_progress(what: str) -> Iterator[None]:
    """Show that `what` is going on: a turning sign at a terminal, one line elsewhere."""
    if not sys.stderr.isatty() or os.environ.get("TERM") == "dumb":
        tell(f"{what} ...")
        yield
        return
    is_done = threading.Event()

    def turn() -> None:
        for seconds, sign in zip(itertools.count(0, 0.1), itertools.cycle("⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"), strict=False):
            print(f"\r{sign} {what}, {seconds:.0f} s ", end="", file=sys.stderr, flush=True)
            if is_done.wait(0.1):
                break
        print("\r" + " " * (len(what) + 12) + "\r", end="", file=sys.stderr, flush=True)

    thread = threading.Thread(target=turn, daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_done.set()
        thread.join()
