"""Kept messages -> conversations of turns: silence parts conversations, and who wrote decides the role.

Everything streams: no more than one conversation is in memory. It leaves to others which messages are kept, who is
imitated, and what becomes of the messages it does not use.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from typing import NamedTuple

USER = "user"
ASSISTANT = "assistant"  # the imitated person


class KeptMessage(NamedTuple):
    """A message whose text is clean: no media, no links, no notices."""

    sent_at: datetime
    sender: str
    text: str


def split_at_silence(messages: Iterable[KeptMessage], gap_seconds: float) -> Iterator[list[KeptMessage]]:
    """Yield the messages conversation by conversation, in the order of the file.

    A clock set back by more than the gap parts them too (two exports pasted into one file); the hour that a change to
    winter time repeats does not.
    """
    gap = timedelta(seconds=gap_seconds)
    earliest = -gap
    conversation: list[KeptMessage] = []
    previous_time: datetime | None = None
    for message in messages:
        sent_at = message[0]
        if previous_time is not None and not earliest <= sent_at - previous_time <= gap:
            yield conversation
            conversation = []
        conversation.append(message)
        previous_time = sent_at
    if conversation:
        yield conversation


def split_after_last_reply(
    conversation: list[KeptMessage], imitated: Collection[str]
) -> tuple[list[KeptMessage], list[KeptMessage]]:
    """Return the conversation up to the imitated person's last message, and what nobody answered after it.

    The first part is empty when that person never wrote.
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
    r"""Join the messages of a conversation into turns of alternating roles, one line break between messages.

    With `shown_names` (a group), each burst of another person begins with their name. A burst is what one sender
    writes in a row, each message at most `gap_seconds` after the one before.

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
        previous = message  # the gap counts from the latest message of a burst
    return [{"role": role, "content": "\n".join(texts)} for role, texts in turns]


def _is_same_burst(previous: KeptMessage | None, message: KeptMessage, gap_seconds: float) -> bool:
    return (
        previous is not None
        and previous.sender == message.sender
        and (message.sent_at - previous.sent_at).total_seconds() <= gap_seconds
    )
