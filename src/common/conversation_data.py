"""formatted_data.jsonl -> checked conversations, for training and for the style report.

A line that is broken, cut or of another tool's format is named by its number and never quoted: it is private.
Token ids are left to `chat_format`, and which conversations are held out to stage 2.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from common.file_kinds import LONGEST_START, name_file_kind
from common.outside_files import NotReadableError, open_regular

PREPROCESSING_REPORT_NAME = "preprocessing_report.json"  # beside the data, with the name of the imitated person
CORRECTIONS_PATH = "src/chat/corrections.jsonl"  # counted from the project; written by the chat, read by stage 2
ROLES = ("user", "assistant")
MAX_BAD_LINES_SHOWN = 5
MAX_MESSAGE_CHARS = 4_000_000  # WhatsApp sends 65,536 at most, and a reply joins a burst of messages

CHAT_EXPORT_RE = re.compile(r"^\W*\d{1,4}[./-]\d{1,2}[./-]\d{1,4},?\s+\d{1,2}[:.]\d{2}")
# The keys of other tools' formats, and their names.
OTHER_FORMS = {
    "conversations": "ShareGPT",
    "instruction": "Alpaca",
    "prompt": "prompt and completion",
    "text": "plain text",
}


class TrainingDataError(ValueError):
    """The data cannot be used: `what is wrong; what to do`. Indented lines after the first are details."""


@dataclass(frozen=True)
class Conversation:
    """One conversation: the roles alternate, no turn is blank, the last one is a reply."""

    line_number: int  # in the file, counted from 0, blank lines included
    messages: list[dict[str, str]]
    started_at: str  # ISO 8601, so that it sorts as text; "" if the line has none
    chat: str = ""  # the title; "" if the line has none
    partners: tuple[str, ...] = ()  # who else wrote, in order of appearance; empty if the line does not say

    @property
    def num_replies(self) -> int:
        """The number of turns of the imitated person."""
        return sum(message["role"] == "assistant" for message in self.messages)


@dataclass(frozen=True)
class TrainingData:
    """The content of a file. `bad_lines` is empty unless they were to be skipped."""

    conversations: list[Conversation]
    sha256: str
    num_without_reply: int
    bad_lines: list[str]


def read_training_data(path: Path, skip_bad_lines: bool = False) -> TrainingData:
    """Read and check the JSONL at `path`; raise TrainingDataError, or OSError if it cannot be read.

    All bad lines are reported together, or only counted with `skip_bad_lines`.
    """
    try:
        with open_regular(path) as file:
            content = file.read()
    except NotReadableError:
        raise TrainingDataError("is not a regular file; give the formatted_data.jsonl of preprocess_start.sh") from None
    _refuse_other_files(content)
    conversations: list[Conversation] = []
    bad_lines: list[str] = []
    num_without_reply = 0
    # Only "\n" ends a line: JSON strings may contain U+2028 and the like.
    for number, line in enumerate(content.removeprefix(b"\xef\xbb\xbf").split(b"\n")):
        if not line.strip():
            continue
        try:
            record = _parse_line(line)
            messages = _join_turns(_checked_messages(record))
        except _BadLine as problem:
            bad_lines.append(f"line {number + 1}: {problem}")
            continue
        if not messages:
            num_without_reply += 1
            continue
        started_at, chat, partners = (record.get(key) for key in ("started_at", "chat", "with"))
        conversations.append(
            Conversation(
                line_number=number,
                messages=messages,
                started_at=started_at if isinstance(started_at, str) else "",
                chat=chat if isinstance(chat, str) else "",
                partners=tuple(name for name in partners if isinstance(name, str))
                if isinstance(partners, list)
                else (),
            )
        )
    if bad_lines and not skip_bad_lines:
        raise TrainingDataError(
            f"{bad_lines[0]}; correct it, make the file again with preprocess_start.sh, or pass --skip-bad-lines"
            + (f"\n  {len(bad_lines):,} bad lines in all:" if len(bad_lines) > 1 else "")
            + "".join(f"\n  {problem}" for problem in bad_lines[:MAX_BAD_LINES_SHOWN] if len(bad_lines) > 1)
        )
    if not conversations:
        raise TrainingDataError(
            "has no reply of the person to imitate (no message of the role assistant that is not blank); "
            "run preprocess_start.sh again and check whom it imitates"
        )
    return TrainingData(conversations, hashlib.sha256(content).hexdigest(), num_without_reply, bad_lines)


def _refuse_other_files(content: bytes) -> None:
    remake = "give the formatted_data.jsonl that preprocess_start.sh writes"
    kind = name_file_kind(content[:LONGEST_START])
    if kind is not None:
        raise TrainingDataError(f"is {kind}, not a JSONL file; {remake}")
    text = content.removeprefix(b"\xef\xbb\xbf").lstrip()
    if not text:
        raise TrainingDataError("is empty; run preprocess_start.sh first")
    first_line = text[:2000].split(b"\n")[0]
    if first_line.startswith(b"{"):
        return
    if CHAT_EXPORT_RE.match(first_line.decode("utf-8", "replace")):
        raise TrainingDataError("is a chat export, not a JSONL file; run preprocess_start.sh on it first")
    if first_line.startswith(b"["):
        raise TrainingDataError("is one JSON array; write each conversation on a line of its own")
    if b"\0" in text[:2000]:
        raise TrainingDataError(f"is a binary file, not a JSONL file; {remake}")


class _BadLine(ValueError):
    """One line cannot be used; the message says why and does not quote it."""


def _parse_line(line: bytes) -> dict[str, Any]:
    if b"\0" in line:
        raise _BadLine("has NUL bytes (damaged by a disk or in copying)")
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _BadLine(f"is not UTF-8 (byte {error.start + 1})") from None
    try:
        record = json.loads(text, parse_constant=_refuse_constant, object_pairs_hook=_without_duplicates)
    except json.JSONDecodeError as error:
        what = "has a second value after the first" if error.msg == "Extra data" else "is not a whole JSON value"
        raise _BadLine(f"{what} (column {error.colno})") from None
    except RecursionError:
        raise _BadLine("is nested too deeply") from None
    except _BadLine:
        raise
    except ValueError:  # an integer of more digits than Python takes
        raise _BadLine("has a number that is too long") from None
    if not isinstance(record, dict):
        raise _BadLine('is not an object such as {"messages": [...]}')
    return record


def _refuse_constant(name: str) -> NoReturn:
    raise _BadLine(f"has {name}, which JSON does not allow")


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(pairs)
    if len(record) < len(pairs):
        raise _BadLine("has a key twice")
    return record


def _checked_messages(record: dict[str, Any]) -> list[dict[str, str]]:
    if "messages" not in record:
        form = next((name for key, name in OTHER_FORMS.items() if key in record), None)
        raise _BadLine('has no key "messages"' + (f" (it looks like the {form} format)" if form else ""))
    messages = record["messages"]
    if not isinstance(messages, list):
        raise _BadLine('"messages" is not a list')
    for number, message in enumerate(messages, start=1):
        if not isinstance(message, dict):
            raise _BadLine(f"message {number} is not an object")
        for key in ("role", "content"):
            if key not in message:
                raise _BadLine(f'message {number} has no key "{key}"')
        if message["role"] not in ROLES:
            raise _BadLine(f'message {number}: "role" is neither "user" nor "assistant"')
        if not isinstance(message["content"], str):
            raise _BadLine(f'message {number}: "content" is not text')
        if len(message["content"]) > MAX_MESSAGE_CHARS:
            raise _BadLine(f'message {number}: "content" is longer than {MAX_MESSAGE_CHARS:,} characters')
        try:
            message["content"].encode("utf-8")
        except UnicodeEncodeError:
            raise _BadLine(f'message {number}: "content" has half of a character (a lone surrogate)') from None
    return messages


def _join_turns(messages: list[dict[str, str]]) -> list[dict[str, str]]:
    """Return `messages` without blank ones, with consecutive turns of one role joined, up to the last reply."""
    turns: list[dict[str, str]] = []
    for message in messages:
        if not message["content"].strip():
            continue
        if turns and turns[-1]["role"] == message["role"]:
            turns[-1] = {"role": message["role"], "content": f"{turns[-1]['content']}\n{message['content']}"}
        else:
            turns.append({"role": message["role"], "content": message["content"]})
    if turns and turns[-1]["role"] == "user":
        turns.pop()
    return turns
