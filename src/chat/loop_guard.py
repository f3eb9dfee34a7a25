"""Notices a reply that goes round in circles, without taking laughter for one.

It leaves stopping to `reply_stream`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import takewhile

from wcwidth import iter_graphemes

BLOCK_TOKENS = range(4, 21)  # shorter blocks occur in good replies, longer ones are stopped by the reply's length
NUM_REPEATS = 4
LAUGHTER_GRAPHEMES = 25  # how long a run such as "חחחחח", "hahaha" or one emoji again and again may get
LAUGHTER_LETTERS = 2


def is_looping(ids: Sequence[int], decode: Callable[[Sequence[int]], str]) -> bool:
    """Return whether `ids` end with one block of 4 to 20 tokens, 4 times in a row.

    A run of one or two different letters (or emoji) is laughter and may last for 25 of them.
    """
    for size in BLOCK_TOKENS:
        tail = list(ids[-size * NUM_REPEATS :])
        if len(tail) == size * NUM_REPEATS and tail == tail[:size] * NUM_REPEATS:
            return not _is_laughter(decode(tail), decode(ids))
    return False


def _is_laughter(tail: str, text: str) -> bool:
    letters = set(iter_graphemes(tail.strip("\N{REPLACEMENT CHARACTER}")))  # a cut through the bytes of a letter
    if len(letters) > LAUGHTER_LETTERS:
        return False
    run = takewhile(letters.__contains__, reversed(list(iter_graphemes(text))))
    return sum(1 for _ in run) <= LAUGHTER_GRAPHEMES
