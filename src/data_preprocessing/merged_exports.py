"""Several exports -> their chats, and for each chat one stream of its messages without duplicates.

Messages decide which exports are of one chat, never file names: they are when most messages between the first and the last
common one are common. Copies that differ, because two phones wrote them, are left to `same_chat`.
"""

from __future__ import annotations

import heapq
from array import array
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from itertools import repeat

from export_survey import REPEATED_HOUR, ExportSurvey
from participants import readable_name
from same_chat import Fingerprints, View, find_view, fingerprints, same_words
from whatsapp_export import Message

# Fewer may have been forwarded to two chats within a minute; and a few duplicates do no harm.
MIN_COMMON_MESSAGES = 10
MIN_COMMON_SHARE = 0.5  # of the messages between the first and the last common one; in one chat nearly all are common

DAY = timedelta(days=1)


@dataclass(frozen=True)
class Chat:
    """One chat: its export, or several that overlap, each with the view that makes it one with the first."""

    title: str
    surveys: list[ExportSurvey]
    views: list[View]

    @property
    def senders(self) -> set[str]:
        """Everybody who wrote, also an assistant that is no person."""
        return self._senders() | {sender for survey in self.surveys for sender in survey.assistants}

    @property
    def is_exact(self) -> bool:
        """Tell whether a message that stands in several exports is the same in all of them to the second."""
        has_parts = any(survey.may_repeat and survey.export.num_formats > 1 for survey in self.surveys)
        return all(view.is_exact for view in self.views) and not has_parts

    @property
    def may_repeat(self) -> bool:
        """Tell whether one of its exports may hold a message twice, because it was joined from two."""
        return any(survey.may_repeat for survey in self.surveys)

    def is_group(self, imitated: Collection[str]) -> bool:
        """Tell whether more than one person besides the imitated one writes here."""
        return len({readable_name(sender) for sender in self._senders() if sender not in imitated}) > 1

    def _senders(self) -> set[str]:
        return {
            view.names.get(sender, sender)
            for survey, view in zip(self.surveys, self.views, strict=True)
            for sender in survey.participants
        }


def group_by_chat(surveys: list[ExportSurvey], imitated: Collection[str]) -> tuple[list[Chat], list[str]]:
    """Group the exports by chat, in the order given; return also what could not be decided, in words.

    A person with two names gets the one in `imitated`, if there is one.
    """

    @cache
    def hashes_of(number: int) -> array[int]:
        """Return a hash of 8 bytes for each message; it needs another reading, so only exports that may overlap get it."""
        return array("q", (hash(message) for message in surveys[number].read()))

    @cache
    def prints_of(number: int) -> Fingerprints:
        return fingerprints(surveys[number].read())

    groups: list[list[tuple[int, View]]] = []
    doubts = []
    for number, survey in enumerate(surveys):
        for group in groups:
            view = None
            for other, view_of_other in group:
                if _may_be_same_chat(survey, surveys[other]) and _is_same_chat(hashes_of(number), hashes_of(other)):
                    view = View().through(view_of_other)
                elif _may_overlap(survey, surveys[other]):
                    found, num_common = find_view(prints_of(number), prints_of(other))
                    view = found.through(view_of_other) if found else None
                    if num_common:
                        doubts.append(
                            f"{survey.file.path.name} and {surveys[other].file.path.name} have {num_common:,} messages in "
                            "common, too few to tell whether they are of one chat; they were not merged"
                        )
                if view is not None:
                    break
            if view is not None:
                group.append((number, view))
                break
        else:
            groups.append([(number, View())])
    titles = Counter[str]()
    chats = []
    for group in groups:
        title = surveys[group[0][0]].file.title
        titles[title] += 1
        chats.append(
            Chat(
                title if titles[title] == 1 else f"{title} ({titles[title]})",
                [surveys[number] for number, _ in group],
                _with_imitated([view for _, view in group], imitated),
            )
        )
    return chats, doubts


def _with_imitated(views: list[View], imitated: Collection[str]) -> list[View]:
    """Return the views with the imitated name of a person who has two."""
    better = {
        name: sender
        for view in views
        for sender, name in view.names.items()
        if sender in imitated and name not in imitated
    }
    if not better:
        return views
    return [
        view._replace(names={**better, **{sender: better.get(name, name) for sender, name in view.names.items()}})
        for view in views
    ]


def _may_overlap(survey: ExportSurvey, other: ExportSurvey) -> bool:
    """Tell whether two exports have days in common, in whatever time zones; two phones may call everybody otherwise."""
    return survey.first - DAY <= other.last and other.first - DAY <= survey.last


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


def merge_exports(
    exports: list[Iterable[Message]], is_exact: bool = True, may_repeat: bool = False
) -> Iterator[tuple[Message, bool]]:
    """Yield (message, whether it is a duplicate) by time; the order inside each export stays.

    A message that stands twice in one export is kept twice: only its copies in other exports are duplicates, and with
    `may_repeat` those after a step back in time. Unless `is_exact`, copies may differ in their seconds and in the marks of
    the phones.
    """
    if len(exports) == 1 and not may_repeat:
        return zip(exports[0], repeat(False))  # noqa: B905 - endless
    return _merge_several(exports, hash if is_exact else _hash_of_words)


def _hash_of_words(message: Message) -> int:
    sent_at, sender, text = message
    return hash((sent_at.replace(second=0), sender, same_words(text, sender) if sender is not None else text))


def _merge_several(
    exports: list[Iterable[Message]], key_of: Callable[[Message], int]
) -> Iterator[tuple[Message, bool]]:
    num_yielded: Counter[int] = Counter()
    num_in_export = [Counter[int]() for _ in exports]  # since the latest step back in time
    previous = [datetime.min for _ in exports]
    streams = [_with_time_so_far(number, export) for number, export in enumerate(exports)]
    for _, number, message in heapq.merge(*streams, key=lambda item: item[:2]):
        if message[0] < previous[number] and previous[number] - message[0] > REPEATED_HOUR:
            num_in_export[number].clear()
        previous[number] = message[0]
        key = key_of(message)
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
