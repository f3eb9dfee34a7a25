"""Two exports of one chat, as two phones wrote them -> how to see one through the eyes of the other.

An Android phone writes no seconds, a phone in another time zone writes other hours, and the contact may have got another
name. What both have in common are the words. Exact copies are left to `merged_exports`.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from typing import NamedTuple

from message_filters import filter_text
from whatsapp_export import Message
from whatsapp_texts import LEFT_TO_RIGHT_MARK

MIN_COMMON_MESSAGES = 10
MIN_COMMON_SHARE = 0.5  # of the messages between the first and the last common one
MIN_DOUBTFUL_MESSAGES = 3  # in both exports, from two people: said to the user
MIN_MESSAGES_OF_SENDER = 2  # of each of two people at least: what one forwards to two chats proves nothing
MIN_NAME_SHARE = 0.9
MIN_TEXT_CHARS = 3  # shorter ones are common to all chats
TIME_ZONE_MINUTES = 15  # time zones differ by multiples
MAX_SHIFT_MINUTES = 26 * 60

START = datetime(2000, 1, 1)
MARGIN = " \t\n\u200e\u200f"


class View(NamedTuple):
    """How to see an export as the phone of another export would have written it."""

    shift: timedelta = timedelta()  # is subtracted
    names: Mapping[str, str] = {}  # senders that have another name there
    is_exact: bool = True  # both have the same seconds, names and texts

    def apply(self, messages: Iterable[Message]) -> Iterable[Message]:
        """Return the messages with the other phone's times and names."""
        return messages if not self.shift and not self.names else self._apply(messages)

    def _apply(self, messages: Iterable[Message]) -> Iterator[Message]:
        for sent_at, sender, text in messages:
            yield Message(sent_at - self.shift, self.names.get(sender or "", sender), text)

    def through(self, other: View) -> View:
        """Return the view of what `other` sees."""
        names = {sender: other.names.get(name, name) for sender, name in self.names.items()}
        return View(self.shift + other.shift, {**other.names, **names}, self.is_exact and other.is_exact)


class Fingerprints(NamedTuple):
    """The messages of an export that people wrote in words; other phones write them alike, but for hours and names."""

    names: list[str]  # of the senders
    senders: array[int]  # places in `names`
    minutes: array[int]
    words: array[int]  # hashes


def same_words(text: str, sender: str | None) -> str:
    """Return what both phones write for one message: its words, or the reason why it is left out."""
    words, reason = filter_text(text, sender)
    return words if words is not None else f"\0{reason}"


def fingerprints(messages: Iterable[Message]) -> Fingerprints:
    """Return what is compared of an export: 20 bytes for each message."""
    places: dict[str, int] = {}
    prints = Fingerprints([], array("l"), array("l"), array("q"))
    for sent_at, sender, text in messages:
        words = text.strip(MARGIN)
        if sender is not None and len(words) >= MIN_TEXT_CHARS and words[0] != "<" and text[0] != LEFT_TO_RIGHT_MARK:
            prints.senders.append(places.setdefault(sender, len(places)))
            prints.minutes.append(int((sent_at - START).total_seconds() // 60))
            prints.words.append(hash(words))
    prints.names.extend(places)
    return prints


def find_view(prints: Fingerprints, others: Fingerprints) -> tuple[View | None, int]:
    """Return how to see the export of `prints` as that of `others`, None when they are of two chats.

    The number is that of the messages in both when this cannot be decided, else 0.
    """
    unique, unique_others = _once(prints.words), _once(others.words)
    pairs = [(unique[words], unique_others[words]) for words in unique.keys() & unique_others.keys()]
    shifts = Counter(prints.minutes[one] - others.minutes[other] for one, other in pairs)
    shifts = Counter({shift: number for shift, number in shifts.items() if abs(shift) <= MAX_SHIFT_MINUTES})
    if not shifts:
        return None, 0
    shift = max(shifts, key=lambda minutes: (shifts[minutes], -abs(minutes)))
    by_sender = Counter(
        (prints.names[prints.senders[one]], others.names[others.senders[other]])
        for one, other in pairs
        if prints.minutes[one] - others.minutes[other] == shift
    )
    writers = [senders for senders, number in by_sender.items() if number >= MIN_MESSAGES_OF_SENDER]
    if len({one for one, _ in writers}) < 2 or len({other for _, other in writers}) < 2:
        return None, 0
    names = _find_names(by_sender)
    keys = _keys(prints, shift, names)
    other_keys = _keys(others, 0, {})
    common = set(keys) & set(other_keys)
    shares = [_share_between(common, side) for side in (keys, other_keys)]
    is_same = len(common) >= MIN_COMMON_MESSAGES and min(shares) >= MIN_COMMON_SHARE
    if is_same and shift % TIME_ZONE_MINUTES == 0:
        return View(timedelta(minutes=shift), names, is_exact=False), 0
    return None, len(common) if len(common) >= MIN_DOUBTFUL_MESSAGES else 0


def _once(words: array[int]) -> dict[int, int]:
    """Return the places of the words that occur once."""
    counts = Counter(words)
    return {one: place for place, one in enumerate(words) if counts[one] == 1}


def _keys(prints: Fingerprints, shift: int, names: Mapping[str, str]) -> array[int]:
    """Return one for each message, equal for copies of it in both exports."""
    senders = [names.get(name, name) for name in prints.names]
    rows = zip(prints.minutes, prints.senders, prints.words, strict=True)
    return array("q", (hash((minute - shift, senders[sender], words)) for minute, sender, words in rows))


def _find_names(by_sender: Mapping[tuple[str, str], int]) -> dict[str, str]:
    """Return who is called otherwise in the other export."""
    totals: Counter[str] = Counter()
    for (sender, _), number in by_sender.items():
        totals[sender] += number
    return {
        sender: other
        for (sender, other), number in by_sender.items()
        if sender != other and number >= MIN_MESSAGES_OF_SENDER and number >= MIN_NAME_SHARE * totals[sender]
    }


def _share_between(common: Collection[object], keys: Iterable[object]) -> float:
    places = [place for place, key in enumerate(keys) if key in common]
    return len(places) / (places[-1] - places[0] + 1) if places else 0.0
