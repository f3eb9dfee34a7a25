"""The project's scripts in processes forked from one that holds the libraries: a start without the seconds of imports.

For tests of what a script does. What only a fresh start shows (imports, the environment, a terminal, bytes that are no
text) is left to tests that use `subprocess`.
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
from pathlib import Path
from unittest import mock

PROJECT_ROOT = Path(__file__).resolve().parents[1]
LIBRARIES = [
    "torch",
    "transformers",
    "transformers.trainer",
    "peft",
    "datasets",
    "sklearn.linear_model",
    "matplotlib.pyplot",
]
LIMIT_SECONDS = 900


class ForkedScript:
    """A script that runs in a process of its own, with the methods of `subprocess.Popen` that the tests use."""

    def __init__(self, script, arguments, given="", folder=None):
        self._streams = tempfile.TemporaryDirectory()
        paths = [Path(self._streams.name, name) for name in ("stdin", "stdout", "stderr")]
        for path, text in zip(paths, (given, "", ""), strict=True):
            path.write_text(text, encoding="utf-8")
        import torch  # here: torch loads only for the tests that need it

        context = multiprocessing.get_context("forkserver")
        # Where the libraries have found a card, no process forked later can use it.
        context.set_forkserver_preload([] if torch.cuda.is_available() else LIBRARIES)
        argv = [str(script), *map(str, arguments)]
        self._paths = paths[1:]
        self._process = context.Process(target=_run, args=(argv, paths, folder or Path.cwd()), daemon=True)
        with mock.patch.dict(os.environ, {"OMP_NUM_THREADS": "1"}):
            self._process.start()

    @property
    def returncode(self):
        """The exit status, negative after a signal; None while it runs."""
        return self._process.exitcode

    def poll(self):
        """Return the exit status, or None while it runs."""
        return self._process.exitcode

    def kill(self):
        """Send SIGKILL."""
        self._process.kill()

    def send_signal(self, number):
        """Send a signal."""
        if self.poll() is None:
            os.kill(self._process.pid, number)

    def output_so_far(self):
        """Return what went to stdout until now."""
        return self._paths[0].read_text(encoding="utf-8")

    def communicate(self, timeout=None):
        """Wait for the end; return what went to stdout and to stderr."""
        self._process.join(timeout)
        if self.poll() is None:
            self.kill()
            raise TimeoutError(f"no end after {timeout} s")
        output, errors = (path.read_text(encoding="utf-8") for path in self._paths)
        self._streams.cleanup()
        return output, errors


def run_forked(script, *arguments, given="", folder=None):
    """Run a script in such a process to its end; return what `subprocess.run` does, as text."""
    process = ForkedScript(script, arguments, given, folder)
    output, errors = process.communicate(LIMIT_SECONDS)
    return subprocess.CompletedProcess([script, *arguments], process.returncode, output, errors)


def _run(argv, paths, folder):
    for number, path in enumerate(paths):
        handle = os.open(path, os.O_WRONLY if number else os.O_RDONLY)
        os.dup2(handle, number)
        os.close(handle)
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 - as Python opens it
    os.chdir(folder)
    sys.stdout.reconfigure(line_buffering=True)
    # The script finds its modules as at any start, beside itself, and not on the path of the tests.
    others = [path for path in sys.path if PROJECT_ROOT not in (Path(path), *Path(path).parents) or ".venv" in path]
    sys.argv, sys.path[:] = argv, [str(Path(argv[0]).parent), *others]
    runpy.run_path(argv[0], run_name="__main__")
