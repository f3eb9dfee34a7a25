"""The held-out conversations as exchanges: the messages before a reply, and the real reply.

Reads the file of held-out sets beside the adapter and the JSONL of the training; refuses any other JSONL.
Running a model on the exchanges is left to `model_replies`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from turns import Messages, with_roles_swapped

from common.conversation_data import Conversation, TrainingDataError, read_training_data
from common.conversation_header import NO_CONTEXT, headers_by_line
from common.model_folder import HELD_OUT_NAME
from common.outside_files import NotReadableError, read_limited
from common.script import ScriptError, shown_path
from writing_style.member_names import find_members, without_names
from writing_style.style_verdict import is_enough
from writing_style.writing_habits import list_words

SET_NAMES = ("spread", "latest")  # blocks over the whole period; the last in time
LONG_REPLY_WORDS = 5  # longer copies of training replies are left out; shorter ones ("סבבה") recur in any chat

T = TypeVar("T")


@dataclass(frozen=True)
class Exchange:
    """One reply, of the owner or (roles swapped) of the other person, and the messages before it."""

    conversation: int  # its line in the JSONL, counted from 0
    number: int  # of the reply among the conversation's messages
    context: Messages
    reply: str
    header: str = ""  # the line before the conversation, as in training


@dataclass(frozen=True)
class HeldOutData:
    """The conversations by line number: those of each held-out set, and those of the training."""

    sets: dict[str, dict[int, Messages]]
    training: dict[int, Messages]
    sha256: str  # of the JSONL
    split_sha256: str  # of the file that names the sets
    about: dict[int, Conversation] = field(default_factory=dict)  # what the JSONL says of each conversation
    members: frozenset[str] = frozenset()  # names that stand before messages of a group
    headers: dict[int, str] = field(default_factory=dict)  # the header of each conversation

    def training_replies(self, role: str) -> list[str]:
        """Return the turns of one role in the training conversations, without the names of a group's members."""
        return [
            without_names(message["content"], self.members)
            for messages in self.training.values()
            for message in messages
            if message["role"] == role
        ]


@dataclass(frozen=True)
class HeldOutSet:
    """One set to measure: the owner's exchanges, and the other person's with the roles swapped."""

    name: str
    owner: list[Exchange]
    other: list[Exchange]

    @property
    def num_conversations(self) -> int:
        """The number of conversations with a reply of the owner."""
        return len({exchange.conversation for exchange in self.owner})

    @property
    def is_enough(self) -> bool:
        """Whether the set has enough replies to measure."""
        return is_enough(len(self.owner), self.num_conversations)


def read_held_out_data(saved_dir: Path, data_path: Path, context: str = NO_CONTEXT) -> HeldOutData:
    """Read the held-out sets of `saved_dir` from `data_path`; raise ScriptError when the two do not belong together.

    `context`: what the header of a conversation told the model in training.
    """
    split_path = saved_dir / HELD_OUT_NAME
    cure = "train again with src/training/fine_tuning_model.py"
    try:
        split_bytes = read_limited(split_path)
    except NotReadableError:
        raise ScriptError(f"{shown_path(split_path)}: is damaged; {cure}") from None
    except FileNotFoundError:
        raise ScriptError(
            f"{shown_path(split_path)}: not found, so there are no held-out conversations; {cure}"
        ) from None
    try:
        split = json.loads(split_bytes)
        sets = {name: [int(number) for number in split[name]] for name in SET_NAMES}
        held_out = {int(number) for name in (*SET_NAMES, "validation") for number in split[name]}
        expected_sha256 = str(split["data_sha256"])
    except (ValueError, TypeError, KeyError, RecursionError):
        raise ScriptError(f"{shown_path(split_path)}: is damaged; {cure}") from None
    try:
        data = read_training_data(data_path, skip_bad_lines=True)  # what the training skipped is skipped here
    except FileNotFoundError:
        raise ScriptError(
            f"{shown_path(data_path)}: not found; give the JSONL this model was trained on with --path-to-data"
        ) from None
    except TrainingDataError as error:
        raise ScriptError(f"{shown_path(data_path)}: {error}") from None
    if data.sha256 != expected_sha256:
        raise ScriptError(
            f"{shown_path(data_path)}: is not the data this model was trained on, so its held-out lines are unknown; "
            "give the JSONL of the training with --path-to-data, or train again"
        )
    conversations: dict[int, Messages] = {talk.line_number: talk.messages for talk in data.conversations}
    if not held_out <= conversations.keys():
        raise ScriptError(f"{shown_path(split_path)}: is damaged (names lines that do not exist); {cure}")
    return HeldOutData(
        sets={name: {number: conversations[number] for number in numbers} for name, numbers in sets.items()},
        training={number: messages for number, messages in conversations.items() if number not in held_out},
        sha256=data.sha256,
        split_sha256=hashlib.sha256(split_bytes).hexdigest(),
        about={talk.line_number: talk for talk in data.conversations},
        members=find_members(data.conversations),
        headers=headers_by_line(data.conversations, context),
    )


def choose_set(data: HeldOutData, name: str, max_replies: int) -> HeldOutSet:
    """Return the set `name` with at most `max_replies` of each person.

    With the roles swapped, the members of a group write as one person, without their names.
    """
    conversations = data.sets[name]
    owner = without_known_replies(list_exchanges(conversations, data.headers), data.training_replies("assistant"))
    swapped = {line: with_roles_swapped(messages) for line, messages in conversations.items()}
    for messages in swapped.values():
        for message in messages:
            if message["role"] == "assistant":
                message["content"] = without_names(message["content"], data.members)
    other = list_exchanges(swapped, data.headers)
    return HeldOutSet(name, take_evenly(owner, max_replies), take_evenly(other, max_replies))


def take_evenly(items: Sequence[T], max_items: int) -> list[T]:
    """Return `items`, or `max_items` of them evenly spaced.

    >>> take_evenly("abcdef", 3)
    ['a', 'c', 'e']
    """
    num_taken = min(len(items), max_items)
    return [items[place * len(items) // num_taken] for place in range(num_taken)]


def list_exchanges(conversations: Mapping[int, Messages], headers: Mapping[int, str] | None = None) -> list[Exchange]:
    """Return the owner's replies that have a context, in the order of the JSONL, each with its conversation's header."""
    return [
        Exchange(line, number, messages[:number], messages[number]["content"], (headers or {}).get(line, ""))
        for line, messages in sorted(conversations.items())
        for number in range(1, len(messages))
        if messages[number]["role"] == "assistant"
    ]


def without_known_replies(exchanges: Iterable[Exchange], known_replies: Iterable[str]) -> list[Exchange]:
    """Return `exchanges` without the long replies that also occur in `known_replies`, word for word."""
    known = set(known_replies)
    return [
        exchange
        for exchange in exchanges
        if exchange.reply not in known or len(list_words(exchange.reply)) <= LONG_REPLY_WORDS
    ]
