"""95 % intervals by resampling conversations with replacement (bootstrap).

Whole conversations are drawn because replies in one conversation resemble each other. What is measured on a draw is
left to the callers.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

NUM_DRAWS = 400  # the ends of a 95 % interval then vary by about 1 % of its width
INTERVAL_PERCENT = 95.0


class Interval(NamedTuple):
    """A measured value and the ends of its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Resamples:
    """How often each conversation was drawn: `weights` is shaped (1 + draws, conversations); row 0 has each once."""

    row_of: dict[int, int]  # from a conversation's number to its column in `weights`
    weights: FloatArray

    def total(self, values: Iterable[tuple[int, Sequence[float]]]) -> FloatArray:
        """Return the sums, shaped (1 + draws, columns), of `values`: each reply's conversation and its row of numbers."""
        listed = list(values)
        sums = np.zeros((len(self.row_of), len(listed[0][1])))
        for conversation, row in listed:
            sums[self.row_of[conversation]] += row
        total: FloatArray = self.weights @ sums
        return total


@dataclass(frozen=True)
class SplitDraws:
    """Draws split into halves: the weights `reference` and `compared`, shaped (draws, splits, conversations).

    In each split a conversation is on one side only, however often it was drawn.
    """

    row_of: dict[int, int]
    reference: FloatArray
    compared: FloatArray


def resample(conversations: Iterable[int], seed: int) -> Resamples:
    """Draw NUM_DRAWS sets of conversations with replacement, after the set itself."""
    row_of = _row_of(conversations)
    drawn = _draw(np.random.default_rng(seed), len(row_of), NUM_DRAWS)
    return Resamples(row_of, np.vstack([np.ones(len(row_of)), drawn]))


def split_draws(conversations: Iterable[int], num_draws: int, num_splits: int, seed: int) -> SplitDraws:
    """Draw conversations with replacement and split them into halves; `num_draws` 0 takes every conversation once."""
    row_of = _row_of(conversations)
    generator = np.random.default_rng(seed)
    weights = _draw(generator, len(row_of), num_draws) if num_draws else np.ones((1, len(row_of)))
    side = np.arange(len(row_of)) % 2 == 0
    sides = generator.permuted(np.broadcast_to(side, (len(weights), num_splits, len(row_of))), axis=-1)
    return SplitDraws(row_of, weights[:, None, :] * sides, weights[:, None, :] * ~sides)


def _row_of(conversations: Iterable[int]) -> dict[int, int]:
    return {number: row for row, number in enumerate(sorted(set(conversations)))}


def _draw(generator: np.random.Generator, num_conversations: int, num_draws: int) -> FloatArray:
    shares = [1 / num_conversations] * num_conversations
    return generator.multinomial(num_conversations, shares, size=num_draws).astype(np.float64)


def interval_of(values: FloatArray) -> Interval:
    """Return the 95 % interval of `values`: the estimate first, then one value per draw.

    A conversation drawn twice repeats its words, so every distance is a little larger than in the whole set. The draws
    are therefore shifted so that their mean equals the estimate.
    """
    estimate, draws = float(values[0]), values[1:]
    draws = draws - draws.mean() + estimate
    margin = (100 - INTERVAL_PERCENT) / 2
    low, high = np.percentile(draws, [margin, 100 - margin])
    # Not beyond the observed values: the shift must not push a distance below 0 or a share above 1.
    low, high = np.clip([low, high], values.min(), values.max())
    return Interval(estimate, float(low), float(high))
