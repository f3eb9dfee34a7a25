"""Copies, repeats and non-words, each against the owner's own rate: what a writer with no sentences of their own shows.

Everybody repeats short replies, and a long chat repeats long ones: only what the tuned model does more often than the
owner counts. It reads no files; the verdict is left to `style_verdict`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from writing_style.resampling import FloatArray, Resamples, interval_of
from writing_style.writing_habits import (
    LONG_RUN_WORDS,
    SHORT_REPLY_WORDS,
    Reply,
    TrainingPhrases,
    list_words,
)

LABELS = {
    "copies": "replies of more than three words copied from training",
    "long_runs": "replies with six words in a row from one training reply",
    "repeats": "replies that the same writer wrote more than once",
    "non_words": "words found neither in training nor in the base's replies",
}


def measure_excess(
    writers: Mapping[str, Sequence[Reply]],
    phrases: TrainingPhrases,
    training: Iterable[str],
    resamples: Resamples,
) -> list[dict[str, object]]:
    """Return one row for each of LABELS: the shares of "owner" and "tuned", and by how much tuned has more.

    `training` are the replies of all people in the training conversations.
    """
    known = {word for text in [*training, *(reply.text for reply in writers["base"])] for word in list_words(text)}
    shares = {name: _shares(writers[name], phrases, known, resamples) for name in ("owner", "tuned")}
    return [
        {
            "name": name,
            "label": label,
            "owner": interval_of(shares["owner"][name])._asdict(),
            "tuned": interval_of(shares["tuned"][name])._asdict(),
            "excess": interval_of(shares["tuned"][name] - shares["owner"][name])._asdict(),
        }
        for name, label in LABELS.items()
    ]


def _shares(
    replies: Sequence[Reply], phrases: TrainingPhrases, known: set[str], resamples: Resamples
) -> dict[str, FloatArray]:
    """Return each share: the estimate, then the draws."""
    num_uses = Counter(reply.text.strip() for reply in replies)
    rows = []
    for reply in replies:
        words = list_words(reply.text)
        counts = {  # how many there are, and of how many
            "copies": (phrases.is_copy(reply.text), len(words) > SHORT_REPLY_WORDS),
            "long_runs": (phrases.longest_run(reply.text) >= LONG_RUN_WORDS, True),
            "repeats": (num_uses[reply.text.strip()] > 1, True),
            "non_words": (sum(word not in known for word in words), len(words)),
        }
        rows.append((reply.conversation, [float(number) for pair in counts.values() for number in pair]))
    totals = resamples.total(rows)
    return {
        name: totals[:, 2 * place] / np.maximum(totals[:, 2 * place + 1], 1e-12) for place, name in enumerate(LABELS)
    }
