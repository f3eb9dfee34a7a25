"""How much of a reply is copied from the training replies: the longest run of words that also stands there.

Short replies repeat in real life, so every number is to be held against the same number of the owner's own held-out
replies. It reads no files.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

from writing_style.writing_habits import list_words

LONG_RUN_WORDS = 6
SHORT_REPLY_WORDS = 3  # exact copies up to here are everyday phrases


class TrainingPhrases:
    """The training replies, ready to be searched for runs of words."""

    def __init__(self, replies: Iterable[str]) -> None:
        """Index `replies` by their words."""
        self._texts = [list_words(reply) for reply in replies]
        self._whole = {tuple(words) for words in self._texts}
        self._places: dict[str, list[tuple[int, int]]] = defaultdict(list)
        for text, words in enumerate(self._texts):
            for place, word in enumerate(words):
                self._places[word].append((text, place))

    def longest_run(self, reply: str) -> int:
        """Return the length in words of the longest run that stands in one training reply."""
        words = list_words(reply)
        longest = 0
        runs: dict[tuple[int, int], int] = {}  # for each place in training: the run that ends there
        for word in words:
            runs = {(text, place): runs.get((text, place - 1), 0) + 1 for text, place in self._places.get(word, ())}
            longest = max(longest, max(runs.values(), default=0))
        return longest

    def is_copy(self, reply: str) -> bool:
        """Return whether the whole reply, longer than an everyday phrase, stands in training."""
        words = tuple(list_words(reply))
        return len(words) > SHORT_REPLY_WORDS and words in self._whole


def describe_copies(phrases: TrainingPhrases, replies: Sequence[str]) -> dict[str, float]:
    """Return how much of `replies` stands in training."""
    runs = [phrases.longest_run(reply) for reply in replies]
    long_enough = [reply for reply in replies if len(list_words(reply)) > SHORT_REPLY_WORDS]
    return {
        "mean_longest_run_words": sum(runs) / len(runs),
        "longest_run_words": max(runs),
        "share_long_runs": sum(run >= LONG_RUN_WORDS for run in runs) / len(runs),
        "num_over_three_words": len(long_enough),
        "num_exact_copies": sum(phrases.is_copy(reply) for reply in long_enough),
    }
