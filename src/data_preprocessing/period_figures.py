"""The figures of a period: who wrote how much and when, the longest silence, links and files by name, the most answered messages."""

from __future__ import annotations

import heapq
import re
from collections import Counter, deque
from datetime import datetime, timedelta

from message_filters import KeptMessage, remove_invisible
from whatsapp_texts import split_attachment

NUM_MOST_ANSWERED = 5
MIN_ANSWERS = 3
ANSWERING_PERIOD = timedelta(minutes=10)  # what follows later answers something else
LINK_RE = re.compile(r"(?:https?://|www\.)[^\s<>\"]{1,2000}", re.IGNORECASE)
LINK_END = ".,!?;:)]}'\"*_~…"
MAX_LISTED = 1_000  # the latest of links and files, and of plans that are past or not certain


class PeriodFigures:
    """Counts the messages of one chat as they go by."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self.first: datetime | None = None  # when the earliest message was sent
        self.people: dict[str, list[int]] = {}  # numbers of messages and of words
        self.silence: tuple[datetime, datetime] | None = None  # the longest
        self.kinds: Counter[str] = Counter()  # of messages without words, by reason
        self.links: deque[tuple[KeptMessage, str]] = deque(maxlen=MAX_LISTED)
        self.files: deque[tuple[KeptMessage, str]] = deque(maxlen=MAX_LISTED)
        self._hours = [0] * (7 * 24)  # of the week, from Monday on
        self._answered: list[tuple[int, int, KeptMessage]] = []  # a heap of (answers, -number, message)
        self._latest: dict[str, tuple[KeptMessage, int]] = {}  # by person: the last message, and its number
        self._num_messages = 0  # that may answer
        self._earliest = datetime.max  # no later than the first message of `_latest`
        self._longest = timedelta()
        self._num_candidates = 0

    def add(
        self, person: str, message: KeptMessage, text: str, words: str | None, reason: str | None, silence: timedelta
    ) -> None:
        """Take the next message: as exported (`text`), its words or the reason why it has none, and the silence before it."""
        sent_at = message[0]
        if self.first is None or sent_at < self.first:
            self.first = sent_at
        counts = self.people.get(person)
        if counts is None:
            counts = self.people[person] = [0, 0]
        counts[0] += 1
        self._hours[24 * sent_at.weekday() + sent_at.hour] += 1
        if silence > self._longest:
            self._longest = silence
            self.silence = sent_at - silence, sent_at
        if words is not None:
            counts[1] += words.count(" ") + words.count("\n") + 1
        elif reason is not None:
            self.kinds[reason] += 1
        if "." in text or reason == "contact":
            self._list_links_and_files(message, text, reason)
        if words is not None or reason == "media":
            self._count_answer(person, message)

    def by_hour(self) -> list[int]:
        """Return the number of messages by hour of the day."""
        return [sum(self._hours[hour::24]) for hour in range(24)]

    def by_weekday(self) -> list[int]:
        """Return the number of messages by day of the week, from Monday on."""
        return [sum(self._hours[24 * day : 24 * day + 24]) for day in range(7)]

    def _list_links_and_files(self, message: KeptMessage, text: str, reason: str | None) -> None:
        if "://" in text or "www." in text:
            self.links += [(message, match[0].rstrip(LINK_END)) for match in LINK_RE.finditer(text)]
        if reason in ("media", "contact") or "<" in text or "(" in text:
            name = attached_file(text)
            if name is not None:
                self.files.append((message, name))

    def _count_answer(self, person: str, message: KeptMessage) -> None:
        """Count the message as an answer to the last one of everybody else."""
        sent_at = message[0]
        if sent_at - self._earliest > ANSWERING_PERIOD:
            self._close_before(sent_at - ANSWERING_PERIOD, person)
        elif person in self._latest:
            self._close(person)
        self._num_messages += 1
        self._latest[person] = message, self._num_messages
        if sent_at < self._earliest:
            self._earliest = sent_at

    def _close_before(self, earliest: datetime, person: str) -> None:
        """Count no more answers to `person` and to whom wrote last before `earliest`."""
        for other, (message, _) in list(self._latest.items()):
            if other == person or message.sent_at < earliest:
                self._close(other)
        self._earliest = min((message.sent_at for message, _ in self._latest.values()), default=datetime.max)

    def _close(self, person: str) -> None:
        """Let the last message of `person` compete by its number of answers, which are all messages after it."""
        message, number = self._latest.pop(person)
        num_answers = self._num_messages - number
        if num_answers < MIN_ANSWERS:
            return
        self._num_candidates += 1
        heapq.heappush(self._answered, (num_answers, -self._num_candidates, message))
        if len(self._answered) > NUM_MOST_ANSWERED:
            heapq.heappop(self._answered)

    def most_answered(self) -> list[tuple[KeptMessage, int]]:
        """Return the messages after which others wrote most within ten minutes, before their writer did again."""
        for person in list(self._latest):
            self._close(person)
        return [(message, num_answers) for num_answers, _, message in sorted(self._answered, reverse=True)]


def attached_file(text: str) -> str | None:
    """Return the name of the file that a message attaches, None when it names none.

    >>> [attached_file(text) for text in ("IMG-1.jpg (file attached)", "report.pdf • 2 pages", "see you at 8. (maybe)")]
    ['IMG-1.jpg', 'report.pdf', None]
    """
    body = remove_invisible(text[:1_000]).strip()
    attachment = split_attachment(text, body, is_marked=False) if body else None
    if attachment is None:
        return None
    if "." in attachment.sign:
        return attachment.sign.strip()
    name, bullet, _ = body.partition(" • ")
    return name if bullet and "." in name and "\n" not in name else None
