"""What every script does the same way: exit codes, one-line errors, shown paths and numbers.

Standard library only: it is imported before `--help` is answered. What to check is left to each script.
"""

from __future__ import annotations

import errno
import os
import re
import shlex
import signal
import sys
import traceback
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import IO, NoReturn

PROJECT_ROOT = Path(__file__).resolve().parents[2]
REQUIREMENTS_PATH = PROJECT_ROOT / "requirements.txt"
OWN_PYTHON_PATH = PROJECT_ROOT / ".venv/bin/python"  # made by set_up_venv.sh

DESCRIPTION_RE = re.compile(r'^"""(.*?)"""', re.DOTALL | re.MULTILINE)
STARTED_AS = "PERSONALCHATBOT_STARTED_AS"  # bash:preprocess_start.sh, as typed; set by that file
MIN_LIKENESS = 0.7  # of two names, to offer one for the other

OS_ERROR_CURES = {
    errno.ENOSPC: "disk full; free some space and run again",
    errno.EDQUOT: "disk quota reached; free some space and run again",
    errno.EFBIG: "the file would be larger than this system allows; free some space and run again",
    errno.EACCES: "permission denied; check who owns it and its mode",
    errno.EPERM: "permission denied; check who owns it and its mode",
    errno.EROFS: "the disk is read-only; choose another place",
    errno.ENOENT: "not found; check the path",
    errno.ENOTDIR: "a folder of this path is a file; check the path",
    errno.EISDIR: "is a folder, a file is needed; check the path",
    errno.ENAMETOOLONG: "the name is too long; choose a shorter one",
    errno.ELOOP: "a loop of symbolic links; check the path",
    errno.EEXIST: "is in the way; remove it, or choose another place",
    errno.ENOTEMPTY: "is in the way and not empty; remove it, or choose another place",
    errno.EBUSY: "is in use, or a disk of its own; choose another place",
    errno.EMFILE: "too many files are open; raise the limit of ulimit -n",
    errno.ENFILE: "too many files are open on this computer; close other programs",
    errno.EIO: "the disk reports a read or write error; check the disk",
}

# How torch and the system word a full memory, besides MemoryError, and that no thread or process may be started.
FULL_MEMORY_WORDS = (
    "out of memory",
    "t allocate memory",
    "not allocate memory",
    "not enough memory",
    "failed to map segment",
    "bad_alloc",
)
FULL_CARD_WORDS = ("CUDA out of memory", "MPS backend out of memory")
NO_THREAD_WORDS = ("t start new thread", "Resource temporarily unavailable")
NO_THREAD = "no further thread or process may be started; close other programs, or raise the limit of ulimit -u"
MAX_REASON_CHARS = 200  # of a library's own words in a message
MAX_ERROR_CHARS = 5_000  # of a line: more than any path, and a name from a file may have millions


class ScriptError(Exception):
    """A problem that the user can fix; the text is `FILE: what is wrong; what to do`.

    Only the first line is the error; further lines are indented details (participants, entries of a zip).
    """


def printable(text: str) -> str:
    """Return `text` with every character that could act on a terminal written as an escape.

    >>> printable("Rut\\x1b[2J")
    'Rut\\\\x1b[2J'
    """
    # Cc: controls, Cs: surrogates, Zl and Zp: separators. Of the format characters (Cf), only joiners are kept.
    return "".join(
        character.encode("unicode_escape").decode("ascii")
        if unicodedata.category(character) in {"Cc", "Cs", "Zl", "Zp"}
        or (unicodedata.category(character) == "Cf" and character not in "\u200c\u200d")
        else character
        for character in text
    )


def printable_lines(text: str) -> str:
    """Return `text` printable line by line: for messages of several lines of our own.

    >>> printable_lines("Plan\\n  device \\x1b[2J")
    'Plan\\n  device \\\\x1b[2J'
    """
    return "\n".join(map(printable, text.split("\n")))


def printable_error(message: str) -> str:
    """Return a ScriptError's text as it is shown: what came from a file or an argument can neither act nor forge a line.

    Only indented lines are details; any other line break is part of a name.

    >>> printable_error("a\\nb: is damaged\\n  line 3")
    'a\\\\nb: is damaged\\n  line 3'
    """
    lines = re.sub(r"\n(?! {2})", r"\\n", printable_lines(message)).split("\n")
    return "\n".join(line if len(line) <= MAX_ERROR_CHARS else f"{line[:MAX_ERROR_CHARS]}..." for line in lines)


def shown_path(path: Path) -> str:
    """Return `path` as messages show it: relative if it is below the current folder, control characters escaped."""
    try:
        return printable(str(path.absolute().relative_to(Path.cwd())))
    except (ValueError, OSError):
        return printable(str(path))


def refuse_undecodable(folder: Path) -> None:
    """Raise ScriptError if a name in the path of `folder` is not UTF-8: the model libraries open no such path."""
    try:
        str(folder).encode()
    except UnicodeEncodeError:
        raise ScriptError(
            f"{shown_path(folder)}: has a name that is not UTF-8, which the model libraries cannot open; rename it, or choose "
            "another place"
        ) from None


def shown_python() -> str:
    """Return the command for this Python: the path of the project's own, else `python3`."""
    return shown_path(Path(sys.executable)) if _is_own_python() else "python3"


def _is_own_python() -> bool:
    return Path(sys.prefix).parent.resolve() == PROJECT_ROOT  # also when .venv is a link


def how_to_install() -> str:
    """Return what to do about a package of requirements.txt that this Python lacks: mostly, it is not that of `.venv`."""
    if _is_own_python():
        return f"run {shown_python()} -m pip install -r {shown_path(REQUIREMENTS_PATH)}"
    if os.path.exists(OWN_PYTHON_PATH):  # of another user it may not be looked at, which Path.exists would raise
        return f"run {shlex.join([shown_path(OWN_PYTHON_PATH), *sys.argv])}"
    set_up = shown_path(PROJECT_ROOT / "src/demo/set_up_venv.sh")
    activate = shown_path(OWN_PYTHON_PATH.with_name("activate"))
    return f"run bash {set_up} requirements.txt, then source {activate}"


def counted(number: int, noun: str) -> str:
    """Return `number` with `noun`, given in the singular.

    >>> counted(1, "reply"), counted(1_200, "reply"), counted(3, "day")
    ('1 reply', '1,200 replies', '3 days')
    """
    if number == 1:
        return f"1 {noun}"
    ends_in_ies = noun.endswith("y") and not noun.endswith("ay")
    return f"{number:,} {noun.removesuffix('y')}ies" if ends_in_ies else f"{number:,} {noun}s"


def shown_command(own_script: Path) -> str:
    """Return the command, without its arguments, that started `own_script`: as typed where a starter says it."""
    program, _, path = os.environ.get(STARTED_AS, "").partition(":")
    command = [program, path] if path else [shown_python(), shown_path(own_script)]
    return printable(shlex.join(part for part in command if part))


def nearest_path(path: Path) -> Path | None:
    """Return the path that exists and is spelled most like `path`, which does not exist; None when none is like it."""
    import difflib

    try:
        existing = path.absolute()
        while not existing.exists() and existing != existing.parent:
            existing = existing.parent
        missing, *rest = path.absolute().relative_to(existing).parts or ("",)
        by_folded = {name.casefold(): name for name in sorted(os.listdir(existing))}
    except OSError:
        return None
    alike = difflib.get_close_matches(missing.casefold(), by_folded, 1, MIN_LIKENESS)
    if not alike:
        return None
    nearest = existing / by_folded[alike[0]]
    if not rest:
        return nearest
    below = nearest.joinpath(*rest)
    return below if below.exists() else nearest_path(below)


def did_you_mean(path: Path) -> str:
    """Return `, or did you mean ...?` for a path that does not exist, "" when nothing there is like it."""
    nearest = nearest_path(path)
    return f", or did you mean {shown_path(nearest)}?" if nearest else ""


def read_description(own_script: Path) -> str:
    """Return the docstring of `own_script`, which is no `__doc__` when the fill-in block stands above it."""
    match = DESCRIPTION_RE.search(own_script.read_text(encoding="utf-8"))
    return match[1] if match else ""


def run_script(main: Callable[[], int | None]) -> NoReturn:
    """Run `main` and exit: 0 done, 1 refused or failed, 2 wrong usage, 129, 130, 143 on SIGHUP, SIGINT, SIGTERM.

    A ScriptError or an error of the file system becomes one line on stderr (`--debug` adds the traceback); any other
    error is reported as our own bug. Files created from here on are readable by their owner only.
    """
    name = Path(sys.argv[0]).stem
    is_debugging = "--debug" in sys.argv[1:]
    os.umask(0o077)
    _open_standard_streams()
    for signal_number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(signal_number) is signal.SIG_DFL:  # one that nohup ignores stays ignored
            signal.signal(signal_number, _exit_on_signal)
    try:
        status = main() or 0
    except (KeyboardInterrupt, SystemExit) as leaving:
        status = 130 if isinstance(leaving, KeyboardInterrupt) else leaving.code  # type: ignore[assignment]
        if isinstance(leaving, KeyboardInterrupt):
            print(f"\n{name}: stopped", file=sys.stderr)
    except BaseException as error:  # noqa: BLE001 - tokenizers' PanicException is no Exception
        status = 1
        message = _user_message(error)
        if message is None:
            print(f"{name}: this is a bug in this program; please report it with the lines below", file=sys.stderr)
        else:
            print(f"{name}: {printable_error(message)}", file=sys.stderr)
        if message is None or is_debugging:
            print(printable_lines(traceback.format_exc().rstrip()), file=sys.stderr)
    with suppress(OSError):
        sys.stdout.flush()
    sys.exit(status)


def _user_message(error: BaseException) -> str | None:
    if isinstance(error, ScriptError):
        return str(error)
    if isinstance(error, OSError) and error.errno in OS_ERROR_CURES and error.filename is not None:
        path = Path(os.fsdecode(error.filename))
        hint = did_you_mean(path) if error.errno == errno.ENOENT else ""
        return f"{shown_path(path)}: {OS_ERROR_CURES[error.errno]}{hint}"
    if isinstance(error, ModuleNotFoundError) and _is_of_requirements(error):
        return f"{error.name}: is not installed for {sys.executable}; {how_to_install()}"
    if isinstance(error, ImportError) and (versions := _other_version((error.name or "").partition(".")[0])):
        return f"{versions}, which lacks what is needed ({reason_of(error)}); {how_to_install()}"
    if isinstance(error, FileNotFoundError) and error.filename is None:  # os.getcwd
        return "the current folder is no longer there; change to another one"
    if _has_words(error, FULL_CARD_WORDS):
        return (
            "the memory of the graphics card is full; close other programs that use it, or choose a smaller base model"
        )
    if is_memory_full(error):
        return "the memory is full; close other programs, choose a smaller base model, or raise the limit of ulimit -v"
    return NO_THREAD if has_no_thread(error) else None


def _is_of_requirements(error: ModuleNotFoundError) -> bool:
    """Return whether a package is missing, rather than a module of ours or one that we keep from being imported."""
    package = (error.name or "").partition(".")[0]
    is_ours = (PROJECT_ROOT / "src" / package).is_dir() or any((PROJECT_ROOT / "src").glob(f"*/{package}.py"))
    return bool(package) and package not in sys.modules and package not in sys.stdlib_module_names and not is_ours


def _other_version(package: str) -> str | None:
    """Return the installed version of `package` and the one that requirements.txt names, if they differ."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        installed, lines = version(package), REQUIREMENTS_PATH.read_text(encoding="utf-8")
    except (PackageNotFoundError, ValueError, OSError):
        return None
    pinned = re.search(rf"^{re.escape(package)}==(\S+)", lines, re.MULTILINE)
    if pinned is None or installed.partition("+")[0] == pinned[1]:  # 2.13.0+cpu is a build of 2.13.0
        return None
    return f"{package}: is version {installed} instead of {pinned[1]}"


def reason_of(error: BaseException) -> str:
    """Return the first line of a library's error as it stands in a message of ours; the error's type if it has no text.

    >>> reason_of(ValueError("no such key: a.\\nIn file b")), reason_of(KeyError())
    ('no such key: a', 'KeyError')
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return printable(lines[0])[:MAX_REASON_CHARS].rstrip(".;: ") if lines else type(error).__name__


def is_memory_full(error: BaseException) -> bool:
    """Return whether `error` reports that the memory of a GPU or of the computer is full."""
    # Outside CUDA's allocator it is a plain RuntimeError, ImportError or OSError, worded by the system.
    return any(isinstance(cause, MemoryError) for cause in _causes(error)) or _has_words(error, FULL_MEMORY_WORDS)


def has_no_thread(error: BaseException) -> bool:
    """Return whether `error` reports that no further thread or process may be started."""
    return _has_words(error, NO_THREAD_WORDS)


def _has_words(error: BaseException, wanted: tuple[str, ...]) -> bool:
    return any(words in str(cause) for cause in _causes(error) for words in wanted)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield `error` and the errors that led to it."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _exit_on_signal(signal_number: int, _frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + signal_number)


class _PipeSafeStream:
    """A text stream that discards output once its reader has left (`| head`), so that the script still finishes."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except BrokenPipeError:
            self._discard_output()
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except BrokenPipeError:
            self._discard_output()

    def _discard_output(self) -> None:
        null_device = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null_device, self._stream.fileno())
        os.close(null_device)

    def __getattr__(self, name: str) -> object:
        return getattr(self._stream, name)


def _open_standard_streams() -> None:
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed by the caller
            stream = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - open as long as the process
        else:
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")
        setattr(sys, name, _PipeSafeStream(stream))
