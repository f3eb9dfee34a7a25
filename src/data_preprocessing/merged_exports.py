"""Several exports -> their chats, and for each chat one stream of its messages without duplicates.

Messages decide which exports are of one chat, never file names: they are when most messages between the first and the last
common one are common.
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

# Fewer may have been forwarded to two chats within a minute; and a few duplicates do no harm.
MIN_COMMON_MESSAGES = 10
MIN_COMMON_SHARE = 0.5  # of the messages between the first and the last common one; in one chat nearly all are common


@dataclass(frozen=True)
class Chat:
    """One chat: its export, or several that overlap."""

    title: str
    surveys: list[ExportSurvey]

    @property
    def senders(self) -> set[str]:
        """Everybody who wrote, also an assistant that is no person."""
        return {sender for survey in self.surveys for sender in (*survey.participants, *survey.assistants)}

    def is_group(self, imitated: Collection[str]) -> bool:
        """Tell whether more than one person besides the imitated one writes here."""
        senders = {sender for survey in self.surveys for sender in survey.participants}
        return len({readable_name(sender) for sender in senders if sender not in imitated}) > 1


def group_by_chat(surveys: list[ExportSurvey]) -> list[Chat]:
    """Group the exports by chat, in the order given."""

    @cache
    def hashes_of(number: int) -> array[int]:
        """Return a hash of 8 bytes for each message; it needs another reading, so only exports that may overlap get it."""
        return array("q", (hash(message) for message in surveys[number].read()))

    groups: list[list[int]] = []
    for number, survey in enumerate(surveys):
        for group in groups:
            candidates = [other for other in group if _may_be_same_chat(survey, surveys[other])]
            if any(_is_same_chat(hashes_of(number), hashes_of(other)) for other in candidates):
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
    # Two chats with different people share the owner's name, and sometimes a forwarded message.
    if len(names & other_names) < 2 and names != other_names:
        return False
    return survey.first <= other.last and other.first <= survey.last


def _is_same_chat(hashes: array[int], other_hashes: array[int]) -> bool:
    """Tell whether two exports, given by the hashes of their messages, are of one chat."""
    common = set(hashes) & set(other_hashes)
    return len(common) >= MIN_COMMON_MESSAGES and all(
        _share_between(common, side) >= MIN_COMMON_SHARE for side in (hashes, other_hashes)
    )


def _share_between(common: set[int], hashes: array[int]) -> float:
    positions = [position for position, value in enumerate(hashes) if value in common]
    return len(positions) / (positions[-1] - positions[0] + 1)


def merge_exports(exports: list[Iterable[Message]]) -> Iterator[tuple[Message, bool]]:
    """Yield (message, whether it is a duplicate) by time; the order inside each export stays.

    A message that stands twice in one export is kept twice: only its copies in other exports are duplicates.
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
    """Yield (latest time so far, number of the export, message), so that a clock set back does not reorder an export."""
    latest = datetime.min
    for message in export:
        latest = max(latest, message[0])
        yield latest, number, message
