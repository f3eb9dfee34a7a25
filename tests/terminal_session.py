"""A program at a pseudo-terminal of 100 columns, typed into and read like a person does."""

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time

PROMPT = "🟩 "
ESCAPE_RE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1"}


class Terminal:
    """The program `command` at its terminal."""

    def __init__(self, *command, term="xterm-256color"):
        self.master, slave = pty.openpty()
        self.resize(100)

        def take_terminal():
            os.setsid()
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)
            signal.signal(signal.SIGINT, signal.default_int_handler)  # a background shell may have switched it off

        self.process = subprocess.Popen(
            command,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=ENVIRONMENT | {"TERM": term},
            preexec_fn=take_terminal,
        )
        os.close(slave)
        self.unread = b""

    def resize(self, columns, rows=40):
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, text):
        os.write(self.master, text.encode())

    def read_until(self, text, timeout=90):
        """Return what is shown up to and with `text`, escape sequences and carriage returns taken out."""
        end = time.monotonic() + timeout
        while text.encode() not in self.unread:
            assert time.monotonic() < end, f"never shown: {text!r}, but {self.unread.decode(errors='replace')!r}"
            if select.select([self.master], [], [], 0.1)[0]:
                self.unread += os.read(self.master, 65536)
        position = self.unread.index(text.encode()) + len(text.encode())
        shown, self.unread = self.unread[:position], self.unread[position:]
        return ESCAPE_RE.sub("", shown.decode()).replace("\r", "")

    def say(self, text):
        """Type a line and return what is shown until the next prompt, without the echo."""
        self.type(text + "\r")
        return self.read_until(PROMPT).removeprefix(text + "\n").removesuffix(PROMPT)

    def wait(self):
        status = self.process.wait(timeout=60)
        os.close(self.master)
        return status
