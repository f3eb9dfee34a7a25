"""formatted_data.jsonl -> checked conversations, and which of them are held out.

A line that is broken, cut or of another tool's form is named by its number, and never quoted: it is private.
It leaves token ids to `chat_format`, cutting to length to `conversation_pieces` and packing to `packing`.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

ROLES = ("user", "assistant")
MAX_BAD_LINES_SHOWN = 5

# Whole conversations are held out, because neighbouring turns know each other's words.
MIN_CONVERSATIONS_TO_HOLD_OUT = 10  # with fewer, every conversation is needed for training
LATEST_SHARE = 0.05  # the last in time: does it still hold for tomorrow's chat?
VALIDATION_SHARE = 0.05  # stopping and choosing; small, since it is read several times an epoch
SPREAD_SHARE = 0.10  # for the report
MAX_SPREAD_SHARE = 0.20  # a short chat gives more, so that the report can say something
WANTED_SPREAD_REPLIES = 300  # fewer leave the rates of emoji and laughter too noisy
MAX_BLOCKS = 100  # blocks of neighbours, spread evenly: single ones would lie beside their training neighbours

# What other files look like, so that the message can name them.
BINARY_BEGINNINGS = {
    b"\x1f\x8b": "a gzip archive",
    b"PK\x03\x04": "a zip archive",
    b"\xff\xfe": "UTF-16 text",
    b"\xfe\xff": "UTF-16 text",
    b"%PDF": "a PDF",
}
CHAT_EXPORT_RE = re.compile(r"^\W*\d{1,4}[./-]\d{1,2}[./-]\d{1,4},?\s+\d{1,2}[:.]\d{2}")
# The keys of other tools' forms, and what the form is called.
OTHER_FORMS = {
    "conversations": "ShareGPT",
    "instruction": "Alpaca",
    "prompt": "prompt and completion",
    "text": "plain text",
}


class TrainingDataError(ValueError):
    """The data cannot be used, worded `what is wrong; what to do`; indented lines after the first are details."""


@dataclass(frozen=True)
class Conversation:
    """One conversation: turns in strict alternation, none blank, ending in a reply."""

    line_number: int  # counted from 0 in the file, blank lines included
    messages: list[dict[str, str]]
    started_at: str  # "" when the line does not say; sorts by time as text

    @property
    def num_replies(self) -> int:
        """How many turns are the imitated person's."""
        return sum(message["role"] == "assistant" for message in self.messages)


@dataclass(frozen=True)
class TrainingData:
    """What a file held. Bad lines are counted only when they were allowed to be skipped."""

    conversations: list[Conversation]
    sha256: str
    num_without_reply: int
    bad_lines: list[str]


@dataclass(frozen=True)
class HeldOut:
    """Line numbers (counted from 0) of the conversations that are kept from training."""

    validation: list[int]
    spread: list[int]
    latest: list[int]

    def __len__(self) -> int:
        """Return how many conversations are held out."""
        return len(self.validation) + len(self.spread) + len(self.latest)


def read_training_data(path: Path, skip_bad_lines: bool = False) -> TrainingData:
    """Read and check the JSONL at `path`; raise TrainingDataError, or OSError when it cannot be read.

    All bad lines are collected before they are refused together, or counted when `skip_bad_lines` is set.
    """
    content = path.read_bytes()
    _refuse_other_files(content)
    conversations: list[Conversation] = []
    bad_lines: list[str] = []
    num_without_reply = 0
    # Only "\n" ends a line: U+2028 and its like may stand raw inside a JSON string.
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
        started_at = record.get("started_at")
        conversations.append(Conversation(number, messages, started_at if isinstance(started_at, str) else ""))
    if bad_lines and not skip_bad_lines:
        raise TrainingDataError(
            f"{bad_lines[0]}; mend it, make the file again with preprocess_start.sh, or pass --skip-bad-lines"
            + (f"\n  {len(bad_lines):,} bad lines in all:" if len(bad_lines) > 1 else "")
            + "".join(f"\n  {problem}" for problem in bad_lines[:MAX_BAD_LINES_SHOWN] if len(bad_lines) > 1)
        )
    if not conversations:
        raise TrainingDataError(
            "has no reply of the person to imitate (no message of the role assistant with words in it); "
            "run preprocess_start.sh again and check whom it imitates"
        )
    return TrainingData(conversations, hashlib.sha256(content).hexdigest(), num_without_reply, bad_lines)


def hold_out(conversations: Sequence[Conversation]) -> HeldOut:
    """Choose the three sets to hold out: the last in time, and blocks spread over the rest of the period.

    The same conversations always give the same sets.
    """
    if len(conversations) < MIN_CONVERSATIONS_TO_HOLD_OUT:
        return HeldOut([], [], [])
    in_time = sorted(conversations, key=lambda conversation: conversation.started_at)  # stable: else as in the file
    num_latest = max(1, round(LATEST_SHARE * len(in_time)))
    earlier, latest = in_time[:-num_latest], in_time[-num_latest:]
    num_replies = sum(conversation.num_replies for conversation in in_time)
    spread_share = min(MAX_SPREAD_SHARE, max(SPREAD_SHARE, WANTED_SPREAD_REPLIES / num_replies))
    block_length = max(1, len(earlier) // MAX_BLOCKS)
    blocks = [earlier[start : start + block_length] for start in range(0, len(earlier), block_length)]
    spread, others = _take_evenly(blocks, spread_share * len(in_time) / len(earlier))
    validation, _ = _take_evenly(others, VALIDATION_SHARE * len(in_time) / max(1, sum(map(len, others))))
    return HeldOut(
        *(
            sorted(conversation.line_number for conversation in group)
            for group in (_flatten(validation), _flatten(spread), latest)
        )
    )


def overlapping_lines(conversations: Sequence[Conversation], held_out: HeldOut) -> list[int]:
    """Return the line numbers of held-out conversations that occur word for word in training, too."""
    held_out_lines = {*held_out.validation, *held_out.spread, *held_out.latest}
    words = {conversation.line_number: json.dumps(conversation.messages) for conversation in conversations}
    trained = {text for line_number, text in words.items() if line_number not in held_out_lines}
    return [line_number for line_number in sorted(held_out_lines) if words[line_number] in trained]


def _take_evenly(
    blocks: list[list[Conversation]], share: float
) -> tuple[list[list[Conversation]], list[list[Conversation]]]:
    """Split `blocks` into those at evenly spaced places, about `share` of all and at least one, and the others."""
    num_taken = max(1, round(share * len(blocks)))
    places = {int((number + 0.5) * len(blocks) / num_taken) for number in range(num_taken)}
    taken = [block for place, block in enumerate(blocks) if place in places]
    return taken, [block for place, block in enumerate(blocks) if place not in places]


def _flatten(blocks: list[list[Conversation]]) -> list[Conversation]:
    return [conversation for block in blocks for conversation in block]


def _refuse_other_files(content: bytes) -> None:
    remake = "give the formatted_data.jsonl that preprocess_start.sh writes"
    for beginning, name in BINARY_BEGINNINGS.items():
        if content.startswith(beginning):
            raise TrainingDataError(f"is {name}, not a JSONL file; {remake}")
    text = content.removeprefix(b"\xef\xbb\xbf").lstrip()
    if not text:
        raise TrainingDataError("is empty; run preprocess_start.sh first")
    first_line = text[:2000].split(b"\n")[0]
    if first_line.startswith(b"["):
        if CHAT_EXPORT_RE.match(first_line.decode("utf-8", "replace")):
            raise TrainingDataError("is a chat export, not a JSONL file; run preprocess_start.sh on it first")
        raise TrainingDataError("is one JSON array, but one conversation a line is needed; write each on its own line")
    if not first_line.startswith(b"{"):
        if CHAT_EXPORT_RE.match(first_line.decode("utf-8", "replace")):
            raise TrainingDataError("is a chat export, not a JSONL file; run preprocess_start.sh on it first")
        if b"\0" in text[:2000]:
            raise TrainingDataError(f"is a binary file, not a JSONL file; {remake}")


class _BadLine(ValueError):
    """One line cannot be used; the text says why without quoting it."""


def _parse_line(line: bytes) -> dict[str, Any]:
    if b"\0" in line:
        raise _BadLine("holds NUL bytes (the disk or a copy damaged it)")
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _BadLine(f"is not UTF-8 (byte {error.start + 1})") from None
    try:
        record = json.loads(text, parse_constant=_refuse_constant, object_pairs_hook=_without_duplicates)
    except json.JSONDecodeError as error:
        what = "holds a second value behind the first" if error.msg == "Extra data" else "is no whole JSON value"
        raise _BadLine(f"{what} (column {error.colno})") from None
    except RecursionError:
        raise _BadLine("is nested too deeply") from None
    except _BadLine:
        raise
    except ValueError:  # an integer of more digits than Python takes
        raise _BadLine("holds a number that is too long") from None
    if not isinstance(record, dict):
        raise _BadLine('is not an object; {"messages": [...]} is needed')
    return record


def _refuse_constant(name: str) -> NoReturn:
    raise _BadLine(f"holds {name}, which is no JSON")


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(pairs)
    if len(record) < len(pairs):
        raise _BadLine("holds a key twice")
    return record


def _checked_messages(record: dict[str, Any]) -> list[dict[str, str]]:
    if "messages" not in record:
        form = next((name for key, name in OTHER_FORMS.items() if key in record), None)
        raise _BadLine('has no key "messages"' + (f" (it looks like the {form} form)" if form else ""))
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
        try:
            message["content"].encode("utf-8")
        except UnicodeEncodeError:
            raise _BadLine(f'message {number}: "content" holds half of a character (a lone surrogate)') from None
    return messages


def _join_turns(messages: list[dict[str, str]]) -> list[dict[str, str]]:
    """Return `messages` without blank ones, turns of one role joined, nothing after the last reply."""
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
