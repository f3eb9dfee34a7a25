"""Two exports of one chat, as two phones wrote them -> how to see one through the eyes of the other.

An Android phone writes no seconds, a phone in another time zone writes other hours, and the contact may have got another
name. What both have in common are the words. Exact copies are left to `merged_exports`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from typing import NamedTuple

from message_filters import filter_text
from whatsapp_export import Message

MIN_COMMON_MESSAGES = 10
MIN_COMMON_SHARE = 0.5  # of the messages between the first and the last common one
MIN_DOUBTFUL_MESSAGES = 3  # in both exports, from two people: said to the user
MIN_MESSAGES_OF_SENDER = 2  # of each of two people at least: what one forwards to two chats proves nothing
MIN_NAME_SHARE = 0.9
MIN_TEXT_CHARS = 3  # shorter ones are common to all chats
TIME_ZONE_MINUTES = 15  # time zones differ by multiples
MAX_SHIFT_MINUTES = 26 * 60

START = datetime(2000, 1, 1)


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


class Fingerprint(NamedTuple):
    """A message that both phones write alike, but for a constant difference of `minute` and for the name."""

    minute: int
    sender: str
    words: int  # a hash


def same_words(text: str, sender: str | None) -> str:
    """Return what both phones write for one message: its words, or the reason why it is left out."""
    words, reason = filter_text(text, sender)
    return words if words is not None else f"\0{reason}"


def fingerprints(messages: Iterable[Message]) -> list[Fingerprint]:
    """Return one for each message that a person wrote in words."""
    found = []
    for sent_at, sender, text in messages:
        words = same_words(text, sender)
        if sender is not None and len(words) >= MIN_TEXT_CHARS and words[0] != "\0":
            found.append(Fingerprint(int((sent_at - START).total_seconds() // 60), sender, hash(words)))
    return found


def find_view(prints: list[Fingerprint], others: list[Fingerprint]) -> tuple[View | None, int]:
    """Return how to see the export of `prints` as that of `others`, None when they are of two chats.

    The number is that of the messages in both when this cannot be decided, else 0.
    """
    unique, unique_others = _once(prints), _once(others)
    pairs = [(unique[words], unique_others[words]) for words in unique.keys() & unique_others.keys()]
    shifts = Counter(
        one.minute - other.minute for one, other in pairs if abs(one.minute - other.minute) <= MAX_SHIFT_MINUTES
    )
    if not shifts:
        return None, 0
    shift = max(shifts, key=lambda minutes: (shifts[minutes], -abs(minutes)))
    pairs = [(one, other) for one, other in pairs if one.minute - other.minute == shift]
    by_sender = Counter((one.sender, other.sender) for one, other in pairs)
    writers = [senders for senders, number in by_sender.items() if number >= MIN_MESSAGES_OF_SENDER]
    if len({one for one, _ in writers}) < 2 or len({other for _, other in writers}) < 2:
        return None, 0
    names = _find_names(by_sender)
    keys = [(one.minute - shift, names.get(one.sender, one.sender), one.words) for one in prints]
    other_keys = [tuple(other) for other in others]
    common = set(keys) & set(other_keys)
    shares = [_share_between(common, side) for side in (keys, other_keys)]
    is_same = len(common) >= MIN_COMMON_MESSAGES and min(shares) >= MIN_COMMON_SHARE
    if is_same and shift % TIME_ZONE_MINUTES == 0:
        return View(timedelta(minutes=shift), names, is_exact=False), 0
    return None, len(common) if len(common) >= MIN_DOUBTFUL_MESSAGES else 0


def _once(prints: Iterable[Fingerprint]) -> dict[int, Fingerprint]:
    """Return the messages whose words occur once, by their words."""
    counts = Counter(one.words for one in prints)
    return {one.words: one for one in prints if counts[one.words] == 1}


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
