"""Everything the report says about one held-out set, from texts and scores alone: no model, no file.

It brings the habits, the judge of authorship and the copies together in one dictionary of plain numbers; what they mean
is decided in `style_verdict.py`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from writing_style.author_classifier import (
    CLASSES,
    judge_writers,
    measure_shuffled_labels,
    measure_taken_for,
    measure_telling_apart,
    share_of_pools_taken_for_owner,
)
from writing_style.habit_distances import make_row, measure_habits
from writing_style.resampling import FloatArray, Interval, Resamples, interval_of, resample
from writing_style.writing_habits import Reply, TrainingPhrases, describe_copies, describe_writer

if TYPE_CHECKING:
    from writing_style.model_replies import ScoredReply


@dataclass(frozen=True)
class TrainingReplies:
    """What the two people wrote in the conversations that training saw."""

    owner: list[str]
    other: list[str]


def measure_set(
    writers: Mapping[str, Sequence[Reply]],
    endings: Mapping[str, Sequence[str]],
    training: TrainingReplies,
    bits: Mapping[str, Any],
    seed: int,
) -> dict[str, Any]:
    """Return the numbers of one set.

    `writers` has the replies of "owner", "tuned" and "base", and of "other" where there is another person; `endings`
    says how each reply of "tuned" and "base" ended.
    """
    shown = ["owner", "tuned", "base", *(["other"] if writers.get("other") else [])]
    replies = {name: list(writers[name]) for name in shown}
    conversations = {reply.conversation for reply in replies["owner"]}
    habits = measure_habits(replies, seed)
    judged_replies = {**replies, "base_cut": cut_to_lengths(replies["base"], replies["owner"], seed)}
    judged = judge_writers({"owner": training.owner, "other": training.other}, judged_replies, seed)
    all_conversations = {reply.conversation for rows in judged_replies.values() for reply in rows}
    resamples = resample(all_conversations, seed)
    taken_for = measure_taken_for(judged, judged_replies, resamples)
    habits.append(
        make_row("taken_for_owner", "Taken for the owner", {name: 1 - taken_for[name]["owner"] for name in shown})
    )
    habits.append(make_row("telling_apart", "Told apart by a judge", measure_telling_apart(replies, seed)))
    controls: dict[str, Any] = {}
    if "other" in replies:
        controls["pools_taken_for_owner"] = {
            name: share_of_pools_taken_for_owner(judged[name], seed) for name in judged_replies
        }
        controls["shuffled_labels"] = measure_shuffled_labels(replies["owner"], replies["other"], seed)._asdict()
    phrases = TrainingPhrases(training.owner)
    return {
        "num_replies": len(replies["owner"]),
        "num_conversations": len(conversations),
        "bits": dict(bits),
        "habits": habits,
        "taken_for": {
            name: {label: interval_of(shares)._asdict() for label, shares in by_class.items()}
            for name, by_class in taken_for.items()
        },
        "side_of_the_owner": _side_of_the_owner(judged, replies, resamples),
        "controls": controls,
        "writers": {name: describe_writer(rows) for name, rows in replies.items()},
        "endings": {name: dict(sorted(Counter(kinds).items())) for name, kinds in endings.items()},
        "copies": {
            name: describe_copies(phrases, [reply.text for reply in replies[name]])
            for name in ("owner", "tuned", "base")
        },
    }


def cut_to_lengths(replies: Sequence[Reply], models: Sequence[Reply], seed: int) -> list[Reply]:
    """Return `replies` cut to lengths drawn from `models`: being short alone must not pass for being the owner."""
    generator = np.random.default_rng(seed)
    lengths = generator.choice([len(model.text) for model in models], size=len(replies))
    return [Reply(reply.conversation, reply.text[:length]) for reply, length in zip(replies, lengths, strict=True)]


def _side_of_the_owner(
    judged: Mapping[str, FloatArray], replies: Mapping[str, Sequence[Reply]], resamples: Resamples
) -> dict[str, float] | None:
    """Return where the tuned model stands between the other person (0) and the owner (1), None where they look alike.

    A model that learnt both people alike stands at .5 whatever the judge's errors; the base plays no part.
    """
    if "other" not in replies:
        return None
    owner_column, other_column = CLASSES.index("owner"), CLASSES.index("other")
    share: dict[str, FloatArray] = {}
    for name in ("owner", "tuned", "other"):
        is_nearer = judged[name][:, owner_column] > judged[name][:, other_column]
        totals = resamples.total(
            (reply.conversation, (nearer, 1)) for reply, nearer in zip(replies[name], is_nearer, strict=True)
        )
        share[name] = totals[:, 0] / np.maximum(totals[:, 1], 1e-12)
    gap = share["owner"] - share["other"]
    if interval_of(gap).low <= 0:
        return None
    position = (share["tuned"][0] - share["other"][0]) / gap[0]
    moved = position + ((share["tuned"] - share["other"]) - position * gap) / gap[0]  # delta method
    return interval_of(moved)._asdict()


def measure_bits(scored: Mapping[str, Sequence[ScoredReply]], seed: int) -> dict[str, dict[str, float]]:
    """Return the bits per character of each group before and after, and what they say, each with its interval.

    Groups: "owner", "shuffled" (the same replies behind other contexts), and "other" when there is another person.
    `specificity` is the drop on the owner's replies minus the drop on the other person's: above 0 it has learnt this
    person. `relevance` is what the right context saves the tuned model.
    """
    resamples = resample((reply.conversation for replies in scored.values() for reply in replies), seed)
    per_char: dict[str, dict[str, FloatArray]] = {}
    for group, replies in scored.items():
        totals = resamples.total(
            (reply.conversation, (reply.base_bits, reply.tuned_bits, reply.num_chars)) for reply in replies
        )
        base, tuned = totals[:, 0] / totals[:, 2], totals[:, 1] / totals[:, 2]
        per_char[group] = {"base": base, "tuned": tuned, "drop": base - tuned}
    measured: dict[str, Interval] = {
        f"{group}_{name}": interval_of(values) for group, rows in per_char.items() for name, values in rows.items()
    }
    measured["relevance"] = interval_of(per_char["shuffled"]["tuned"] - per_char["owner"]["tuned"])
    if "other" in per_char:
        measured["specificity"] = interval_of(per_char["owner"]["drop"] - per_char["other"]["drop"])
    return {name: interval._asdict() for name, interval in measured.items()}
