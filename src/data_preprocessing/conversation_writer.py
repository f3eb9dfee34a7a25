"""The second look through the exports: each message goes into a training conversation or into the ledger.

It brings filter, redaction, conversations and ledger together and decides nothing else. Memory holds one conversation.
"""

from __future__ import annotations

import hashlib
import json
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date
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

_encode = json.JSONEncoder(ensure_ascii=False).encode


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

    def write_chat(self, title: str, exports: list[Iterable[Message]], shown_names: Mapping[str, str] | None) -> None:
        """Write the conversations of one chat, merged from its `exports`.

        `shown_names` (of every sender) are given for a group: there the others' names stand before their words.
        """
        settings = self._settings
        messages = self._keep_messages(title, exports)
        if settings.max_messages_per_chat is not None:
            messages = self._keep_latest(title, messages, settings.max_messages_per_chat)
        for conversation in split_at_silence(messages, settings.conversation_gap_seconds):
            answered, unanswered = split_after_last_reply(conversation, settings.imitated)
            for message in unanswered:
                self._ledger.drop(message, AFTER_LAST_REPLY if answered else NO_REPLY_IN_CONVERSATION, title)
            if answered:
                turns = build_turns(answered, settings.imitated, settings.turn_gap_seconds, shown_names)
                self._write(turns, title, answered[0])
                self._ledger.keep(len(answered))

    def _keep_messages(self, title: str, exports: list[Iterable[Message]]) -> Iterator[KeptMessage]:
        settings, redact, drop = self._settings, self._redact, self._ledger.drop
        has_dates = (settings.since, settings.until) != (date.min, date.max)
        for message, is_duplicate in merge_exports(exports):
            sent_at, sender, text = message
            words, reason = None, None
            if is_duplicate:
                reason = DUPLICATE
            elif has_dates and not settings.since <= sent_at.date() <= settings.until:
                reason = OUTSIDE_DATES
            elif settings.unknown_placeholders and text.strip() in settings.unknown_placeholders:
                reason = UNKNOWN_PLACEHOLDER
            else:
                words, reason = filter_text(text, sender)
            if reason is not None:
                drop(message, reason, title)
            elif words is not None and sender is not None:
                yield KeptMessage(sent_at, sender, redact(words))

    def _keep_latest(self, title: str, messages: Iterable[KeptMessage], num_messages: int) -> Iterator[KeptMessage]:
        latest: deque[KeptMessage] = deque()
        for message in messages:
            latest.append(message)
            if len(latest) > num_messages:
                self._ledger.drop(latest.popleft(), OVER_CAP, title)
        yield from latest

    def _write(self, turns: list[dict[str, str]], title: str, first: KeptMessage) -> None:
        conversation = {"messages": turns, "chat": title, "started_at": first.sent_at.isoformat()}
        line = _encode(conversation) + "\n"
        self._hash.update(line.encode("utf-8"))
        self._data_file.write(line)
        replies = [turn["content"] for turn in turns if turn["role"] == ASSISTANT]
        self.num_conversations += 1
        self.num_turns += len(turns)
        self.num_replies += len(replies)
        self.num_reply_chars += sum(map(len, replies))
