"""The conversation on disk: `conversation.txt` to read, and the JSONL log `conversation.jsonl` to continue from.

Both are only appended to. Each finished bubble is one write, flushed to disk, so that a crash or a kill loses none.
The layout of a bubble is left to `bubbles`, the model's context to `live_conversation`.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import signal
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from bubbles import render_bubble, render_caption, render_note
from turns import Messages, add_to_turn, replace_reply, take_back_reply, take_back_turn, with_roles_swapped

from common.outside_files import NotReadableError, open_regular
from common.private_files import flush_folder, replacing
from common.script import ScriptError, shown_path
from common.text_safety import remove_unsafe_characters

# Resuming reads only the end of the JSONL log: more than any model's context, and a log of gigabytes opens at once.
RESUME_BYTES = 4 * 1024 * 1024
MAX_MODEL_CHARS = 200  # of a model's name in a log
YOU = "you"  # who types, in captions; in a group the member as whom they write

# Events other than messages, by their name in the JSONL log: the note in conversation.txt.
NOTES = {
    "undo": "last turn taken back",
    "regenerate": "last reply taken back",
    "better": "last reply replaced by a better one",
    "reset": "new conversation",
    "swap": "roles swapped",
    "load": "a saved conversation continues",
}
HEADER_EVENT = "header"  # with whom a conversation is; it stands before the messages, or after a load


class ConversationLog:
    """Appends messages to `path` and to the JSONL log beside it.

    Once open, it never raises: what could not be written is kept and tried again.
    """

    def __init__(self, path: Path, warn: Callable[[str], None]) -> None:
        """Open both files, created private (0600). Raises ScriptError or OSError when they cannot be written.

        When another chat holds `path`, `<name>-<process>.txt` is used and `warn` gets a message.
        """
        self._warn = warn
        self._has_warned = False
        self.path, self._text_file = _open_unshared(path, warn)
        self.jsonl_path = self.path.with_suffix(".jsonl")
        self.names = {"user": YOU, "assistant": "the model"}  # as captions show the two roles
        self._last_role: str | None = None  # of the turn that goes on
        self._day = _now().date()  # of the last date line
        self._jsonl_file = _AppendedFile(self.jsonl_path)

    def start(self, settings: Mapping[str, Any], model: str) -> None:
        """Record the start of a chat: a centred date line, the `model` that replies, and in the JSONL log the settings."""
        now = _now()
        date = now.strftime("%Y-%m-%d %H:%M ") + now.strftime("%z")[:3] + ":" + now.strftime("%z")[3:]
        self._last_role, self._day = None, now.date()
        self._append(
            f"\n{render_note(date)}{render_note(model)}",
            [{"event": "start", "settings": dict(settings), "model": model}],
        )

    def add_bubble(self, role: str, text: str, remark: str | None = None) -> None:
        """Record one finished bubble of `role`; `remark` says how it was cut short (`interrupted`).

        The first of a turn gets a caption, the first of a day a date line. A blank line goes before each bubble: else a
        burst would look like one long message.
        """
        shown = f"{text} [{remark}]" if remark else text
        now = _now()
        date = f"\n{render_note(now.strftime('%Y-%m-%d'))}" if now.date() != self._day else ""
        is_new_turn = bool(date) or role == "user" or role != self._last_role
        caption = render_caption(role, self.names[role], now.strftime("%H:%M")) if is_new_turn else ""
        self._last_role, self._day = role, now.date()
        record = {"role": role, "text": remove_unsafe_characters(text)}
        self._append(
            f"{date}\n{caption}{render_bubble(role, shown)}", [record | ({"remark": remark} if remark else {})]
        )

    def add_event(self, event: str, messages: Sequence[Mapping[str, str]] = (), models: Sequence[str] = ()) -> None:
        """Record one of NOTES; after a load, `messages` is the whole conversation and `models` wrote its replies."""
        self._last_role = None
        record = {"event": event} | ({"models": list(models)} if models else {})
        self._append(f"\n{render_note(NOTES[event])}", [record, *_message_records(messages)])

    def replace_reply(self, text: str) -> None:
        """Record that `text`, its messages separated by line breaks, took the place of the last reply."""
        self._last_role = None
        bubbles = "".join(f"\n{render_bubble('assistant', line)}" for line in text.split("\n"))
        self._append(f"\n{render_note(NOTES['better'])}{bubbles}", [{"event": "better", "text": text}])

    def add_header(self, shown: str, record: Mapping[str, Any]) -> None:
        """Record with whom a conversation is and when it began: `shown` to read, `record` to continue from."""
        gap = "\n" if self._last_role else ""  # a bubble stands above
        self._append(gap + render_note(shown), [{"event": HEADER_EVENT, **record}])

    @property
    def has_unwritten(self) -> bool:
        """Whether part of the conversation is not on disk yet."""
        return bool(self._text_file.pending or self._jsonl_file.pending)

    def close(self) -> None:
        """Try once more to write what is pending, and close the files."""
        self._append("", [])
        for file in (self._text_file, self._jsonl_file):
            file.remove_if_unused()
            file.close()

    def _append(self, text: str, records: Sequence[Mapping[str, Any]]) -> None:
        lines = "".join(_json_line({"at": _now().isoformat(timespec="seconds"), **record}) for record in records)
        with _signals_deferred():
            for file, addition in ((self._text_file, text), (self._jsonl_file, lines)):
                try:
                    file.append(addition.encode("utf-8"))
                except (OSError, ScriptError) as error:
                    self._warn_once(file.path, error)

    def _warn_once(self, path: Path, error: OSError | ScriptError) -> None:
        if self._has_warned:
            return
        self._has_warned = True
        reason = os.strerror(error.errno or 0) if isinstance(error, OSError) else "is no ordinary file"
        self._warn(f"{shown_path(path)}: not written ({reason}); the chat goes on and tries again at each message")


class _AppendedFile:
    """A file that is only appended to. Bytes that could not be written stay in `pending` until the next call."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.pending = b""
        self._handle = self._open()

    def append(self, data: bytes) -> None:
        """Write what is pending, then `data`, and flush it to disk. Raises OSError; the bytes then stay pending."""
        self.pending += data
        if not self._is_still_in_place():  # deleted or moved meanwhile: go on in a new file
            replacement = self._open()
            os.close(self._handle)
            self._handle = replacement
            self.lock()
        while self.pending:
            num_written = os.write(self._handle, self.pending)  # on a full disk perhaps only a part
            self.pending = self.pending[num_written:]
        if data:
            os.fsync(self._handle)

    def lock(self) -> bool:
        """Lock the file for this process; return False when another process holds it."""
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def remove_if_unused(self) -> None:
        """Remove the file if it was created here and is empty: the model could not be loaded."""
        if self._is_new and not self.pending and not os.fstat(self._handle).st_size and self._is_still_in_place():
            self.path.unlink()

    def close(self) -> None:
        os.close(self._handle)

    def _open(self) -> int:
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)  # it may be deleted during the chat
        self._is_new = not self.path.exists()
        handle = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)  # RDWR: opening a pipe does not block
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            os.close(handle)
            raise ScriptError(f"{shown_path(self.path)}: is no ordinary file; choose another with --conversation-path")
        if self._is_new:
            flush_folder(self.path.parent)
        if not self.path.is_symlink():  # what a link leads to keeps the mode that its owner gave it
            with suppress(PermissionError):  # another owner's file that we may write
                os.fchmod(handle, 0o600)
        size = os.fstat(handle).st_size
        if size and not self.pending and os.pread(handle, 1, size - 1) != b"\n":
            self.pending = b"\n"  # a last line cut by a crash: end it first
        return handle

    def _is_still_in_place(self) -> bool:
        try:
            return os.path.samestat(self.path.stat(), os.fstat(self._handle))
        except FileNotFoundError:
            return False


@contextmanager
def _signals_deferred() -> Iterator[None]:
    """Delay signals to the end of the block: else the two files could differ, or a line be written twice."""
    arrived: list[int] = []
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    previous_handlers = {
        number: signal.signal(number, lambda arriving, _frame: arrived.append(arriving)) for number in numbers
    }
    try:
        yield
    finally:
        for number, handler in previous_handlers.items():
            signal.signal(number, handler)
        for arrived_number in arrived:
            signal.raise_signal(arrived_number)


def _open_unshared(path: Path, warn: Callable[[str], None]) -> tuple[Path, _AppendedFile]:
    if path.suffix == ".jsonl":
        raise ScriptError(f"{shown_path(path)}: this name is needed for the JSONL log; choose one that ends in .txt")
    file = _AppendedFile(path)
    if file.lock():
        return path, file
    file.close()
    own_path = path.with_name(f"{path.stem}-{os.getpid()}{path.suffix}")
    warn(f"{shown_path(path)}: another chat writes here; this one is logged to {shown_path(own_path)}")
    own_file = _AppendedFile(own_path)
    own_file.lock()
    return own_path, own_file


@dataclass(frozen=True)
class SavedConversation:
    """The last conversation of a JSONL log or of a saved file; empty where it holds none."""

    messages: Messages = field(default_factory=list)
    models: list[str] = field(default_factory=list)  # that wrote its replies, as far as the file says
    header_record: dict[str, Any] = field(default_factory=dict)  # with whom it is and since when; empty if not known


def read_conversation(jsonl_path: Path) -> SavedConversation:
    """Return the last conversation of a JSONL log (or a saved file); damaged lines are left out.

    Raises OSError, also when it is no regular file.
    """
    messages: Messages = []
    models: list[str] = []
    header_record: dict[str, Any] = {}
    current_model: str | None = None
    for record in _read_records(jsonl_path):
        role, text, event = record.get("role"), record.get("text"), record.get("event")
        if role in ("user", "assistant") and isinstance(text, str):
            add_to_turn(messages, role, remove_unsafe_characters(text))
            if role == "assistant" and current_model and current_model not in models:
                models.append(current_model)
        elif event in ("start", "reset", "load"):
            messages, header_record = [], {}
            models = _model_names(record.get("models"))
            if event == "start":
                current_model = next(iter(_model_names([record.get("model")])), None)
        elif event == HEADER_EVENT:
            header_record = record
        elif event == "undo":
            take_back_turn(messages)
        elif event == "regenerate":
            take_back_reply(messages)
        elif event == "better" and isinstance(text, str):
            replace_reply(messages, remove_unsafe_characters(text))
        elif event == "swap":
            messages = with_roles_swapped(messages)
    return SavedConversation(messages, models, header_record)


def _model_names(found: Any) -> list[str]:
    """Return the names among `found`: a log may come from anywhere."""
    if not isinstance(found, list):
        return []
    return [
        " ".join(remove_unsafe_characters(name)[:MAX_MODEL_CHARS].split()) for name in found if isinstance(name, str)
    ]


def save_conversation(
    path: Path,
    messages: Sequence[Mapping[str, str]],
    models: Sequence[str] = (),
    header_record: Mapping[str, Any] | None = None,
) -> None:
    """Write `messages` and the `models` that wrote the replies to `path` as a JSONL log, private and whole. Raises OSError.

    `header_record`: with whom the messages are and since when.
    """
    header = [] if header_record is None else [{"event": HEADER_EVENT, **header_record}]
    with replacing(path) as file:
        start = {"event": "start"} | ({"models": list(models)} if models else {})
        for record in (start, *header, *_message_records(messages)):
            file.write(_json_line({"at": _now().isoformat(timespec="seconds"), **record}))


def _message_records(messages: Iterable[Mapping[str, str]]) -> list[dict[str, Any]]:
    return [{"role": message["role"], "text": message["content"]} for message in messages]


def _read_records(path: Path) -> Iterator[dict[str, Any]]:
    try:
        with open_regular(path) as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - RESUME_BYTES))
            lines = file.read().split(b"\n")
    except NotReadableError:
        raise OSError(errno.EINVAL, "it is no regular file", str(path)) from None
    for line in lines:
        try:
            record = json.loads(line.decode("utf-8", errors="replace"))
        except (ValueError, RecursionError):  # cut by a crash, or the first line of the part read
            continue
        if isinstance(record, dict):
            yield record


def _json_line(record: Mapping[str, Any]) -> str:
    return json.dumps(record, ensure_ascii=False) + "\n"


def _now() -> datetime:
    return datetime.now().astimezone()
