"""One writer in plain numbers that a reader can see, and the words a model uses too much or too little.

It compares nothing with an interval: that is left to `habit_distances`.
"""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

from writing_style.writing_habits import (
    Reply,
    count_elongation,
    count_scripts,
    count_words,
    ending_of,
    laughter_of,
    list_emoji,
    list_words,
    split_messages,
)


def describe_writer(replies: Sequence[Reply]) -> dict[str, float]:
    """Return plain numbers about one writer's replies."""
    texts = [reply.text for reply in replies]
    messages = [message for text in texts for message in split_messages(text)]
    letters = sum((count_scripts(text) for text in texts), Counter())
    bigrams = [pair for text in texts for pair in pairwise(list_words(text))]
    return {
        "num_replies": len(texts),
        "median_chars": float(statistics.median(len(message) for message in messages)),
        "median_words": float(statistics.median(len(list_words(message)) for message in messages)),
        "messages_per_reply": len(messages) / len(texts),
        "share_with_emoji": sum(bool(list_emoji(message)) for message in messages) / len(messages),
        "share_laughing": sum(laughter_of(message) != "none" for message in messages) / len(messages),
        "share_elongated": sum(count_elongation(message)["with"] for message in messages) / len(messages),
        "share_ending_bare": sum(ending_of(message) == "nothing" for message in messages) / len(messages),
        "latin_share_of_letters": letters["Latin"] / max(letters.total(), 1),
        "distinct_word_pairs": len(set(bigrams)) / max(len(bigrams), 1),
        "share_repeated_replies": 1 - len(set(texts)) / len(texts),
        "share_empty": sum(not text.strip() for text in texts) / len(texts),
        "share_looping": sum(has_loop(text) for text in texts) / len(texts),
    }


def has_loop(text: str) -> bool:
    """Return whether some words (up to eight) come four times in a row; laughter is one word and no loop.

    >>> has_loop("יאללה טוב יאללה טוב יאללה טוב יאללה טוב"), has_loop("חחחחחחחח די")
    (True, False)
    """
    words = list_words(text)
    return any(
        words[start : start + size] * 3 == words[start + size : start + 4 * size]
        for size in range(1, 9)
        for start in range(len(words) - 4 * size + 1)
    )


def find_key_words(
    tuned: Sequence[str], owner: Sequence[str], num_words: int = 10, min_uses: int = 5
) -> dict[str, list[str]]:
    """Return the words that "overused" and "underused" say of the tuned model: twice as often as the owner, or half.

    At most `num_words` of each, the worst first, among those used `min_uses` times by both together. Private: words.
    """
    tuned_counts = sum((count_words(reply) for reply in tuned), Counter())
    owner_counts = sum((count_words(reply) for reply in owner), Counter())
    tuned_total, owner_total = max(tuned_counts.total(), 1), max(owner_counts.total(), 1)
    often = [word for word in tuned_counts | owner_counts if tuned_counts[word] + owner_counts[word] >= min_uses]

    def log_ratio(word: str) -> float:
        return math.log2((tuned_counts[word] + 0.5) / tuned_total * owner_total / (owner_counts[word] + 0.5))

    often.sort(key=lambda word: (log_ratio(word), word))
    return {
        "overused": [word for word in reversed(often[-num_words:]) if log_ratio(word) > 1],
        "underused": [word for word in often[:num_words] if log_ratio(word) < -1],
    }
