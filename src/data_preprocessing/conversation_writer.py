"""The second look through the exports: each message goes into a training conversation or into the ledger.

It brings filter, redaction, conversations and ledger together and decides nothing else. Memory holds one conversation.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from json.encoder import encode_basestring
from typing import IO

from conversations import ASSISTANT, KeptMessage, build_turns, split_after_last_reply, split_at_silence
from merged_exports import merge_exports
from message_filters import filter_text
from preprocessing_report import (
    AFTER_LAST_REPLY,
    DUPLICATE,
    NO_REPLY_IN_CONVERSATION,
    OUTSIDE_DATES,
    OVER_CAP,
    UNKNOWN_PLACEHOLDER,
    Ledger,
)
from whatsapp_export import Message


@dataclass(frozen=True)
class Settings:
    """How conversations are made of messages."""

    imitated: Collection[str]  # every sender name of the imitated person
    unknown_placeholders: Mapping[str, int]  # whole bodies that are WhatsApp's words, and how many times
    turn_gap_seconds: int
    conversation_gap_seconds: int
    max_messages_per_chat: int | None = None  # the latest are kept
    since: date = date.min
    until: date = date.max


class ConversationWriter:
    """Writes conversations to `data_file`, one JSON a line, and counts what it wrote."""

    def __init__(self, data_file: IO[str], ledger: Ledger, redact: Callable[[str], str], settings: Settings) -> None:
        """Hide with `redact` what a person wrote; count in `ledger` where each message went."""
        self.num_conversations = 0
        self.num_turns = 0
        self.num_replies = 0  # turns of the imitated person
        self.num_reply_chars = 0
        self._data_file = data_file
        self._ledger = ledger
        self._redact = redact
        self._settings = settings
        self._hash = hashlib.sha256()

    @property
    def data_sha256(self) -> str:
        """The hash of all that was written."""
        return self._hash.hexdigest()

    def totals(self) -> dict[str, int]:
        """Return the counts for the report."""
        return {
            "num_conversations": self.num_conversations,
            "num_turns": self.num_turns,
            "num_replies": self.num_replies,
            "num_reply_chars": self.num_reply_chars,
        }

    def write_chat(
        self, title: str, exports: list[Iterable[Message]], names: Mapping[str, str], is_group: bool
    ) -> None:
        """Write the conversations of one chat, merged from its `exports`.

        `names` gives each sender as he or she is shown; in a group the others' names stand before their words.
        """
        settings = self._settings
        messages = self._keep_messages(title, exports, names)
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
                self._write(turns, title, answered[0].sent_at)
                self._ledger.keep(len(answered))

    def _keep_messages(
        self, title: str, exports: list[Iterable[Message]], names: Mapping[str, str]
    ) -> Iterator[KeptMessage]:
        settings, redact, drop = self._settings, self._redact, self._ledger.drop
        unknown_placeholders = settings.unknown_placeholders
        new = tuple.__new__  # half the time of KeptMessage(...)
        has_dates = (settings.since, settings.until) != (date.min, date.max)
        for (sent_at, sender, text), is_duplicate in merge_exports(exports):
            words, reason = None, None
            if is_duplicate:
                reason = DUPLICATE
            elif has_dates and not settings.since <= sent_at.date() <= settings.until:
                reason = OUTSIDE_DATES
            elif unknown_placeholders and text.strip() in unknown_placeholders:
                reason = UNKNOWN_PLACEHOLDER
            else:
                words, reason = filter_text(text, sender)
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

    def _write(self, turns: list[dict[str, str]], title: str, started_at: datetime) -> None:
        line = encode_conversation(turns, title, started_at)
        self._hash.update(line.encode("utf-8"))
        self._data_file.write(line)
        replies = [turn["content"] for turn in turns if turn["role"] == ASSISTANT]
        self.num_conversations += 1
        self.num_turns += len(turns)
        self.num_replies += len(replies)
        self.num_reply_chars += sum(map(len, replies))


def encode_conversation(turns: list[dict[str, str]], chat: str, started_at: datetime) -> str:
    """Return the line of the data file, as json.dumps would with ensure_ascii=False, in half its time.

    >>> encode_conversation([{"role": "assistant", "content": "a\\nb"}], "Rut", datetime(2024, 5, 1))
    '{"messages": [{"role": "assistant", "content": "a\\\\nb"}], "chat": "Rut", "started_at": "2024-05-01T00:00:00"}\\n'
    """
    messages = ", ".join(
        [f'{{"role": "{turn["role"]}", "content": {encode_basestring(turn["content"])}}}' for turn in turns]
    )
    return (
        f'{{"messages": [{messages}], "chat": {encode_basestring(chat)}, "started_at": "{started_at.isoformat()}"}}\n'
    )
