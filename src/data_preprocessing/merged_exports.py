"""Several exports -> the chats they are of, and of each chat one stream of its messages, each once.

Which exports belong together is read from the messages, never from file names: two exports are of one chat when most
of what lies between their first and last common message is common. It leaves parsing and cleaning to others.
"""

from __future__ import annotations

import heapq
from array import array
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from itertools import repeat

from export_survey import ExportSurvey
from participants import readable_name
from whatsapp_export import Message

# Fewer may have been forwarded to two chats within the same minutes, and a few messages twice do no harm.
MIN_COMMON_MESSAGES = 10
MIN_COMMON_SHARE = 0.5  # of the messages between the first and the last common one; of one chat it is nearly all


@dataclass(frozen=True)
class Chat:
    """One chat: an export of it, or several that overlap."""

    title: str
    surveys: list[ExportSurvey]

    @property
    def senders(self) -> set[str]:
        """Everybody who wrote."""
        return {sender for survey in self.surveys for sender in survey.participants}

    def is_group(self, imitated: Collection[str]) -> bool:
        """Tell whether several people besides the imitated one write here."""
        return len({readable_name(sender) for sender in self.senders if sender not in imitated}) > 1


def group_by_chat(surveys: list[ExportSurvey]) -> list[Chat]:
    """Put exports that overlap as exports of one chat do together, in the order given."""

    @cache
    def hashes_of(number: int) -> array[int]:
        """Return 8 bytes for each message, from another reading, which only overlapping exports need."""
        return array("q", (hash(message) for message in surveys[number].file.read()))

    groups: list[list[int]] = []
    for number, survey in enumerate(surveys):
        for group in groups:
            if any(
                _may_be_same_chat(survey, surveys[other]) and _is_same_chat(hashes_of(number), hashes_of(other))
                for other in group
            ):
                group.append(number)
                break
        else:
            groups.append([number])
    titles = Counter[str]()
    chats = []
    for group in groups:
        title = surveys[group[0]].file.title
        titles[title] += 1
        chats.append(
            Chat(title if titles[title] == 1 else f"{title} ({titles[title]})", [surveys[number] for number in group])
        )
    return chats


def _may_be_same_chat(survey: ExportSurvey, other: ExportSurvey) -> bool:
    """Tell whether two exports have people and days in common."""
    names, other_names = survey.participants.keys(), other.participants.keys()
    # Two chats of the owner with different people share the owner's name alone, and now and then a forwarded message.
    if len(names & other_names) < 2 and names != other_names:
        return False
    return survey.first <= other.last and other.first <= survey.last


def _is_same_chat(hashes: array[int], other_hashes: array[int]) -> bool:
    """Tell whether two exports overlap as two exports of one chat do."""
    common = set(hashes) & set(other_hashes)
    return len(common) >= MIN_COMMON_MESSAGES and all(
        _share_between(common, side) >= MIN_COMMON_SHARE for side in (hashes, other_hashes)
    )


def _share_between(common: set[int], hashes: array[int]) -> float:
    positions = [position for position, value in enumerate(hashes) if value in common]
    return len(positions) / (positions[-1] - positions[0] + 1)


def merge_exports(exports: list[Iterable[Message]]) -> Iterator[tuple[Message, bool]]:
    """Return (message, whether another export already gave it) by time, the order inside each export untouched.

    A message that stands twice in one export stays twice: it is a duplicate only as often as another export gave it.
    """
    return zip(exports[0], repeat(False)) if len(exports) == 1 else _merge_several(exports)  # noqa: B905 - endless


def _merge_several(exports: list[Iterable[Message]]) -> Iterator[tuple[Message, bool]]:
    num_yielded: Counter[int] = Counter()
    num_in_export = [Counter[int]() for _ in exports]
    streams = [_with_time_so_far(number, export) for number, export in enumerate(exports)]
    for _, number, message in heapq.merge(*streams, key=lambda item: item[:2]):
        key = hash(message)
        num_in_export[number][key] += 1
        is_duplicate = num_in_export[number][key] <= num_yielded[key]
        if not is_duplicate:
            num_yielded[key] += 1
        yield message, is_duplicate


def _with_time_so_far(number: int, export: Iterable[Message]) -> Iterator[tuple[datetime, int, Message]]:
    """Yield (latest time so far, number of the export, message): a clock set back does not reorder an export."""
    latest = datetime.min
    for message in export:
        latest = max(latest, message[0])
        yield latest, number, message
