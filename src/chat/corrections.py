"""Better replies that the user typed: appended to `corrections.jsonl`, from which stage 2 trains with `--corrections`.

A line has the `messages` form of the training data; its last message is the better reply. The replies before it are the
model's own, and stage 2 learns the last one only. Replacing the reply in the conversation is left to `chat_session`.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import stat
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from common.private_files import flush_folder
from common.script import ScriptError, shown_path

ESCAPE_RE = re.compile(r"\\(\\|n)")


def as_reply(typed: str) -> str:
    r"""Return the reply that was typed in one line: `\n` begins another message, `\\` is a backslash; no message is empty.

    >>> as_reply("yalla" + r" \n at 8?")
    'yalla\nat 8?'
    """
    text = ESCAPE_RE.sub(lambda match: "\n" if match[1] == "n" else "\\", typed)
    return "\n".join(line.strip() for line in text.split("\n") if line.strip())


def append_correction(
    path: Path, before: Sequence[Mapping[str, Any]], better: str, known: Mapping[str, str] | None = None
) -> None:
    """Append the messages `before` the reply and the `better` reply to `path`, private (0600) and flushed to disk.

    `known`: with whom the conversation is and since when, in the keys of the training data. Several chats may write at the
    same time. Raises OSError, or ScriptError when `path` is no ordinary file; nothing of the line is left then.
    """
    messages = [
        *({"role": message["role"], "content": message["content"]} for message in before),
        {"role": "assistant", "content": better},
    ]
    line = (json.dumps({"messages": messages, **(known or {})}, ensure_ascii=False) + "\n").encode("utf-8")
    is_new = not path.exists()
    handle = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)  # RDWR: opening a pipe does not block
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise ScriptError(f"{shown_path(path)}: is no ordinary file; remove it")
        fcntl.flock(handle, fcntl.LOCK_EX)  # until it is closed
        with suppress(PermissionError):  # another owner's file that we may write
            os.fchmod(handle, 0o600)
        size = os.fstat(handle).st_size
        if size and os.pread(handle, 1, size - 1) != b"\n":  # a last line cut by a crash: end it first
            line = b"\n" + line
        try:
            while line:
                line = line[os.write(handle, line) :]  # on a full disk perhaps only a part
            os.fsync(handle)
        except OSError:
            os.ftruncate(handle, size)
            raise
    finally:
        os.close(handle)
    if is_new:
        flush_folder(path.parent)
