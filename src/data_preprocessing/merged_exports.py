"""Several exports of one chat -> one stream of its messages, each once.

Which exports belong together is read from the messages, never from file names: two exports are of one chat when most
of what lies between their first and last common message is common. It leaves parsing and cleaning to others.
"""

from __future__ import annotations

import heapq
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import datetime
from itertools import repeat
from typing import TypeVar

# Fewer may have been forwarded to two chats within the same minutes, and a few messages twice do no harm.
MIN_COMMON_MESSAGES = 10
MIN_COMMON_SHARE = 0.5  # of the messages between the first and the last common one; of one chat it is nearly all

MessageT = TypeVar("MessageT", bound=tuple[datetime, "str | None", str])  # (sent_at, sender, text)


def hash_messages(messages: Iterable[MessageT]) -> array[int]:
    """Return 8 bytes for each message, in order."""
    return array("q", (hash(message) for message in messages))


def is_same_chat(hashes: array[int], other_hashes: array[int]) -> bool:
    """Tell whether two exports overlap as two exports of one chat do."""
    common = set(hashes) & set(other_hashes)
    return len(common) >= MIN_COMMON_MESSAGES and all(
        _share_between(common, side) >= MIN_COMMON_SHARE for side in (hashes, other_hashes)
    )


def _share_between(common: set[int], hashes: array[int]) -> float:
    positions = [position for position, value in enumerate(hashes) if value in common]
    return len(positions) / (positions[-1] - positions[0] + 1)


def merge_exports(exports: list[Iterable[MessageT]]) -> Iterator[tuple[MessageT, bool]]:
    """Return (message, whether another export already gave it) by time, the order inside each export untouched.

    A message that stands twice in one export stays twice: it is a duplicate only as often as another export gave it.
    """
    return zip(exports[0], repeat(False)) if len(exports) == 1 else _merge_several(exports)  # noqa: B905 - endless


def _merge_several(exports: list[Iterable[MessageT]]) -> Iterator[tuple[MessageT, bool]]:
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


def _with_time_so_far(number: int, export: Iterable[MessageT]) -> Iterator[tuple[datetime, int, MessageT]]:
    """Yield (latest time so far, number of the export, message): a clock set back does not reorder an export."""
    latest = datetime.min
    for message in export:
        latest = max(latest, message[0])
        yield latest, number, message
