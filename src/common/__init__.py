"""What two or more stages share. It imports no stage.

Each script imports it first. A Python or a system on which the rest cannot be imported is refused here in one line, and a
Ctrl-C ends the script without a traceback also while it is still importing.
"""

import sys
from pathlib import Path


def _hide_interrupt(kind, error, traceback):  # type: ignore[no-untyped-def] # an older Python must be able to read it
    if not issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, traceback)


sys.excepthook = _hide_interrupt

if sys.version_info < (3, 11):  # noqa: UP036 - that of the system, by a script started without .venv
    script, (major, minor) = Path(sys.argv[0]).stem, sys.version_info[:2]
    sys.exit(
        f"{script}: Python 3.11 or newer is needed, this one is {major}.{minor}; type source .venv/bin/activate first (bash "
        "src/demo/set_up_venv.sh requirements.txt makes it)"
    )
try:
    import fcntl  # noqa: F401
except ImportError:
    sys.exit(f"{Path(sys.argv[0]).stem}: needs Linux or macOS; on Windows, use WSL2 (README, Systems)")
