"""The second reading of the exports: each message goes into a training conversation or, with a reason, into the ledger.

A silence ends a conversation, the sender of a message decides the role of its turn. Messages are streamed; memory holds one
conversation. Merging, filtering and redacting are left to other modules.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from json.encoder import encode_basestring
from typing import IO

from merged_exports import merge_exports
from message_filters import KeptMessage, filter_text
from preprocessing_report import (
    AFTER_LAST_REPLY,
    DUPLICATE,
    NO_REPLY_IN_CONVERSATION,
    OUTSIDE_DATES,
    OVER_CAP,
    Ledger,
)
from text_facts import TextFacts
from whatsapp_export import Message

USER = "user"
ASSISTANT = "assistant"  # the imitated person

LONGEST_DELAY = timedelta(days=-1)  # of a message that arrived late


def split_at_silence(messages: Iterable[KeptMessage], gap_seconds: float) -> Iterator[list[KeptMessage]]:
    """Yield the messages conversation by conversation, in the order of the file.

    A step back in time by more than a day ends a conversation too (two exports pasted into one file); a message that was
    sent without a network and arrived hours later does not, nor does the hour that winter time repeats.
    """
    gap = timedelta(seconds=gap_seconds)
    conversation: list[KeptMessage] = []
    latest: datetime | None = None
    for message in messages:
        sent_at = message[0]
        if latest is not None and not LONGEST_DELAY <= sent_at - latest <= gap:
            yield conversation
            conversation = []
            latest = None
        conversation.append(message)
        if latest is None or sent_at > latest:
            latest = sent_at
    if conversation:
        yield conversation


def split_after_last_reply(
    conversation: list[KeptMessage], imitated: Collection[str]
) -> tuple[list[KeptMessage], list[KeptMessage]]:
    """Return the conversation up to the imitated person's last message, and the unanswered messages after it.

    The first part is empty when that person wrote nothing.
    """
    end = len(conversation)
    while end and conversation[end - 1].sender not in imitated:
        end -= 1
    return conversation[:end], conversation[end:]


def build_turns(
    conversation: Iterable[KeptMessage],
    imitated: Collection[str],
    gap_seconds: float,
    shown_names: Mapping[str, str] | None = None,
) -> list[dict[str, str]]:
    r"""Join the messages of a conversation into turns of alternating roles, with a line break between messages.

    With `shown_names` (a group), each burst of another person begins with their name. A burst is the consecutive messages
    of one sender, each at most `gap_seconds` after the one before.

    >>> morning = datetime(2024, 5, 1, 9, 0)
    >>> said = [KeptMessage(morning, "Dan", "hi"), KeptMessage(morning, "Rut", "hey"), KeptMessage(morning, "Rut", ":)")]
    >>> build_turns(said, {"Rut"}, 600, {"Dan": "Dan"})
    [{'role': 'user', 'content': 'Dan: hi'}, {'role': 'assistant', 'content': 'hey\n:)'}]
    """
    turns: list[tuple[str, list[str]]] = []
    previous: KeptMessage | None = None
    for message in conversation:
        role = ASSISTANT if message.sender in imitated else USER
        text = message.text
        if shown_names is not None and role == USER and not _is_same_burst(previous, message, gap_seconds):
            text = f"{shown_names[message.sender]}: {text}"
        if turns and turns[-1][0] == role:
            turns[-1][1].append(text)
        else:
            turns.append((role, [text]))
        previous = message  # the gap is measured from the latest message of a burst
    return [{"role": role, "content": "\n".join(texts)} for role, texts in turns]


def _is_same_burst(previous: KeptMessage | None, message: KeptMessage, gap_seconds: float) -> bool:
    return (
        previous is not None
        and previous.sender == message.sender
        and (message.sent_at - previous.sent_at).total_seconds() <= gap_seconds
    )


@dataclass(frozen=True)
class Settings:
    """How conversations are made from messages."""

    imitated: Collection[str]  # every sender name of the imitated person
    facts: TextFacts  # of all exports
    turn_gap_seconds: int
    conversation_gap_seconds: int
    max_messages_per_chat: int | None = None  # the latest are kept
    since: date = date.min
    until: date = date.max
    keeps_media: bool = False  # as marks


class ConversationWriter:
    """Writes conversations to `data_file`, one JSON object per line, and counts them."""

    def __init__(self, data_file: IO[str], ledger: Ledger, redact: Callable[[str], str], settings: Settings) -> None:
        """Apply `redact` to what is written, and tell `ledger` what became of each message."""
        self.num_conversations = 0
        self.num_turns = 0
        self.num_replies = 0  # turns of the imitated person
        self.num_openers = 0  # of them, those that begin a conversation and answer nothing
        self.num_reply_chars = 0
        self._data_file = data_file
        self._ledger = ledger
        self._redact = redact
        self._settings = settings
        self._hash = hashlib.sha256()

    @property
    def data_sha256(self) -> str:
        """The SHA-256 of the data written so far."""
        return self._hash.hexdigest()

    def totals(self) -> dict[str, int]:
        """Return the counts for the report."""
        return {
            "num_conversations": self.num_conversations,
            "num_turns": self.num_turns,
            "num_replies": self.num_replies,
            "num_openers": self.num_openers,
            "num_reply_chars": self.num_reply_chars,
        }

    def write_chat(
        self,
        title: str,
        exports: list[Iterable[Message]],
        names: Mapping[str, str],
        is_group: bool,
        is_exact: bool = True,
        may_repeat: bool = False,
    ) -> None:
        """Write the conversations of one chat, merged from its `exports`.

        `names` holds the shown name of each sender; in a group it stands before the words of the others. Unless `is_exact`,
        the copies of one message in several exports may differ. `may_repeat`: one export may hold copies.
        """
        settings = self._settings
        # Exports with and without the media files write them differently: copies of these are no exact ones.
        merged = merge_exports(exports, is_exact and not settings.keeps_media, may_repeat)
        messages = self._keep_messages(title, merged, names)
        if settings.max_messages_per_chat is not None:
            messages = self._keep_latest(title, messages, names, settings.max_messages_per_chat)
        for conversation in split_at_silence(messages, settings.conversation_gap_seconds):
            answered, unanswered = split_after_last_reply(conversation, settings.imitated)
            reason = AFTER_LAST_REPLY if answered else NO_REPLY_IN_CONVERSATION
            for sent_at, sender, words in unanswered:
                self._ledger.drop(reason, title, sent_at, names[sender], words)
            if answered:
                shown_names = names if is_group else None
                turns = build_turns(answered, settings.imitated, settings.turn_gap_seconds, shown_names)
                others = dict.fromkeys(names[said[1]] for said in answered if said[1] not in settings.imitated)
                self._write(turns, title, answered[0].sent_at, others)
                self._ledger.keep(len(answered))

    def _keep_messages(
        self, title: str, messages: Iterable[tuple[Message, bool]], names: Mapping[str, str]
    ) -> Iterator[KeptMessage]:
        settings, redact, drop = self._settings, self._redact, self._ledger.drop
        facts, keeps_media = settings.facts, settings.keeps_media
        new = tuple.__new__  # takes half the time of KeptMessage(...)
        has_dates = (settings.since, settings.until) != (date.min, date.max)
        for (sent_at, sender, text), is_duplicate in messages:
            words, reason = None, None
            if is_duplicate:
                reason = DUPLICATE
            elif has_dates and not settings.since <= sent_at.date() <= settings.until:
                reason = OUTSIDE_DATES
            else:
                words, reason = filter_text(text, sender, facts, keeps_media)
            if words is not None:
                yield new(KeptMessage, (sent_at, sender, redact(words)))
            elif reason is not None:
                drop(reason, title, sent_at, None if sender is None else names[sender], redact(text))

    def _keep_latest(
        self, title: str, messages: Iterable[KeptMessage], names: Mapping[str, str], num_messages: int
    ) -> Iterator[KeptMessage]:
        latest: deque[KeptMessage] = deque()
        for message in messages:
            latest.append(message)
            if len(latest) > num_messages:
                sent_at, sender, words = latest.popleft()
                self._ledger.drop(OVER_CAP, title, sent_at, names[sender], words)
        yield from latest

    def _write(self, turns: list[dict[str, str]], title: str, started_at: datetime, others: Iterable[str]) -> None:
        line = encode_conversation(turns, title, started_at, others)
        self._hash.update(line.encode("utf-8"))
        self._data_file.write(line)
        replies = [turn["content"] for turn in turns if turn["role"] == ASSISTANT]
        self.num_conversations += 1
        self.num_turns += len(turns)
        self.num_replies += len(replies)
        self.num_openers += turns[0]["role"] == ASSISTANT
        self.num_reply_chars += sum(map(len, replies))


def encode_conversation(turns: list[dict[str, str]], chat: str, started_at: datetime, others: Iterable[str]) -> str:
    """Return a line of the data file: what json.dumps returns with ensure_ascii=False, in half the time.

    `others`: who else wrote, in order of appearance.

    >>> encode_conversation([{"role": "assistant", "content": "a\\nb"}], "Rut", datetime(2024, 5, 1), ["Rut"])
    '{"messages": [{"role": "assistant", "content": "a\\\\nb"}], "chat": "Rut", "started_at": "2024-05-01T00:00:00", "with": ["Rut"]}\\n'
    """
    messages = ", ".join(
        [f'{{"role": "{turn["role"]}", "content": {encode_basestring(turn["content"])}}}' for turn in turns]
    )
    return (
        f'{{"messages": [{messages}], "chat": {encode_basestring(chat)}, "started_at": "{started_at.isoformat()}", '
        f'"with": [{", ".join(map(encode_basestring, others))}]}}\n'
    )
