"""Run a script on a disk that fails: from its N-th operation on, or at that one alone.

    python failing_disk.py COUNT_FILE N ERROR once|lasting SCRIPT [ARGUMENT ...]

Operations are what can fail on the way to a whole file: to make a folder, to open for writing (a folder to flush it,
too), to write, to flush to disk, to rename. N is 0 for a sound disk; COUNT_FILE then holds how many operations there
were. Reading and deleting always work, as they do on a full disk.
"""

import builtins
import errno
import io
import os
import runpy
import sys
from pathlib import Path

WRITING_FLAGS = os.O_WRONLY | os.O_RDWR | os.O_CREAT


class FailingDisk:
    """Counts operations and lets the chosen ones fail."""

    def __init__(self, number: int, error: int, is_lasting: bool) -> None:
        self.num_operations = 0
        self._number, self._error, self._is_lasting = number, error, is_lasting

    def operate(self, path: object = None) -> None:
        """Count one operation; raise OSError, with the path where the real one has it, when it is to fail."""
        self.num_operations += 1
        is_reached = self.num_operations >= self._number if self._is_lasting else self.num_operations == self._number
        if self._number and is_reached:
            raise OSError(self._error, os.strerror(self._error), path)

    def install(self) -> None:
        """Put this disk under the functions of Python that write."""
        disk, real_open, real_os_open = self, builtins.open, os.open

        class FailingFile(io.FileIO):
            def write(self, data):
                disk.operate()
                return super().write(data)

        def open_file(
            path, mode="r", buffering=-1, encoding=None, errors=None, newline=None, closefd=True, opener=None
        ):
            if not set(mode) & set("wxa+"):
                return real_open(path, mode, buffering, encoding, errors, newline, closefd, opener)
            if opener is None:
                disk.operate(path)  # else os.open counts it
            buffer = io.BufferedWriter(FailingFile(path, mode.replace("b", ""), opener=opener))
            return buffer if "b" in mode else io.TextIOWrapper(buffer, encoding, errors, newline)

        def os_open(path, flags, mode=0o777, **options):
            if flags & WRITING_FLAGS or os.path.isdir(path):
                disk.operate(path)
            return real_os_open(path, flags, mode, **options)

        def failing(function):
            def operate_and_call(subject, *arguments, **options):
                disk.operate(None if isinstance(subject, int) else subject)  # a write or a flush names no file
                return function(subject, *arguments, **options)

            return operate_and_call

        builtins.open, os.open = open_file, os_open
        for name in ("mkdir", "write", "fsync", "replace", "rename"):
            setattr(os, name, failing(getattr(os, name)))


def main() -> None:
    """Run the script of the command line as if it had been started itself."""
    count_path, number, error, duration, script, *arguments = sys.argv[1:]
    disk = FailingDisk(int(number), getattr(errno, error), duration == "lasting")
    sys.argv = [script, *arguments]
    sys.path[0] = str(Path(script).parent)
    write_count = Path(count_path).write_text
    disk.install()
    try:
        runpy.run_path(script, run_name="__main__")
    finally:
        if int(number) == 0:
            write_count(str(disk.num_operations))


if __name__ == "__main__":
    main()
