"""Kill a process (SIGKILL) just before it changes a name on disk: a rename, a removal, a new folder.

    python killing_disk.py OPERATION NAME SCRIPT [ARGUMENT ...]

runs a script that is killed at its first OPERATION (replace, rmdir ...) on a path called NAME. Within a test, `run_killed`
does the same to a function, at its N-th operation.
"""

import os
import runpy
import signal
import sys
import traceback
from pathlib import Path

OPERATIONS = ("mkdir", "rename", "replace", "unlink", "remove", "rmdir")


def kill_before(is_chosen):
    """Kill this process before the first operation for which `is_chosen(operation, paths)`."""

    def watched(operation, function):
        def kill_or_call(*arguments, **options):
            if is_chosen(operation, [path for path in arguments if isinstance(path, str | os.PathLike)]):
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*arguments, **options)

        return kill_or_call

    for operation in OPERATIONS:
        setattr(os, operation, watched(operation, getattr(os, operation)))


def run_killed(function, number):
    """Run `function` in a child, killed before its operation of this number; return whether it came that far."""
    child_id = os.fork()
    if child_id == 0:
        status = 1
        try:
            countdown = iter(range(number - 1, -1, -1))
            kill_before(lambda _operation, _paths: next(countdown) == 0)
            function()
            status = 0
        except BaseException:  # noqa: BLE001 - the child must not go on with the tests of its parent
            traceback.print_exc()
        finally:
            os._exit(status)
    status = os.waitstatus_to_exitcode(os.waitpid(child_id, 0)[1])
    assert status in (0, -signal.SIGKILL), status
    return status != 0


def main():
    """Run the script of the command line as if it had been started itself."""
    wanted_operation, name, script, *arguments = sys.argv[1:]
    sys.argv = [script, *arguments]
    sys.path[0] = str(Path(script).parent)
    kill_before(
        lambda operation, paths: operation == wanted_operation and any(Path(path).name == name for path in paths)
    )
    runpy.run_path(script, run_name="__main__")


if __name__ == "__main__":
    main()
