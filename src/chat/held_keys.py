"""Keys typed while no line is read, during a reply for instance: neither shown inside of it nor lost.

They wait in the terminal's own buffer for the next line. Reading and editing that line is left to `line_editor`.
"""

from __future__ import annotations

import os
import signal
import sys
import termios
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

LOCAL_FLAGS, SPECIAL_KEYS = 3, 6  # places in what termios returns


@contextmanager
def holding_keys() -> Iterator[None]:
    """Within the block, the terminal shows no typed key and hands each on as it is; Ctrl-C still interrupts.

    Does nothing where standard input is no terminal, or not ours at present (a job in the background).
    """
    try:
        terminal = sys.stdin.fileno() if sys.stdin is not None else -1
        before = termios.tcgetattr(terminal)
        is_ours = os.tcgetpgrp(terminal) == os.getpgrp()
    except (OSError, ValueError, termios.error):
        is_ours = False
    if not is_ours:
        yield
        return

    def hold() -> None:
        held = termios.tcgetattr(terminal)
        held[LOCAL_FLAGS] &= ~(termios.ECHO | termios.ICANON | termios.IEXTEN)
        held[LOCAL_FLAGS] |= termios.NOFLSH  # else Ctrl-C throws away what was typed before it
        held[SPECIAL_KEYS][termios.VMIN], held[SPECIAL_KEYS][termios.VTIME] = 1, 0
        termios.tcsetattr(terminal, termios.TCSANOW, held)

    def hold_again(_signal_number: int, _frame: FrameType | None) -> None:
        with suppress(OSError, termios.error):
            if os.tcgetpgrp(terminal) == os.getpgrp():
                hold()

    previous_handler = signal.signal(signal.SIGCONT, hold_again)  # after Ctrl-Z, the shell has set its own mode
    try:
        hold()
        yield
    finally:
        signal.signal(signal.SIGCONT, previous_handler)
        is_failing = sys.exc_info()[0] is not None  # ended by a signal, for instance
        with suppress(OSError, termios.error):  # the window is closed
            # In the background, the system would stop a job here that is to end, and the mode is the shell's.
            if not is_failing or os.tcgetpgrp(terminal) == os.getpgrp():
                termios.tcsetattr(terminal, termios.TCSANOW, before)
