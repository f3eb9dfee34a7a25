"""All measurements of one held-out set, from texts and scores alone: no model, no file.

Habits, the classifier of authorship, copies and bits per character end up in one dictionary of plain numbers; the
verdict on them is left to `style_verdict`.

The conversations are split into halves: the owner's replies of one half are the reference, and every writer, the owner
included, is measured on the other. The owner's own distance is thus what a perfect imitation reaches, with the same
number of replies and the same upward bias of small samples.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from common.conversation_header import NO_CONTEXT
from writing_style.author_classifier import (
    CLASSES,
    classify_replies,
    measure_separation,
    measure_shuffled_labels,
    measure_taken_for,
    share_of_pools_taken_for_owner,
)
from writing_style.copying import measure_excess
from writing_style.resampling import (
    NUM_DRAWS,
    FloatArray,
    Interval,
    Resamples,
    SplitDraws,
    interval_of,
    resample,
    split_draws,
)
from writing_style.situations import measure_situations
from writing_style.writing_habits import HABITS, Habit, Reply, TrainingPhrases, describe_copies, describe_writer

if TYPE_CHECKING:
    from writing_style.model_replies import ScoredReply

SPLITS_PER_DRAW = 4  # averaged, to reduce the noise of a single split
SPLITS_OF_ESTIMATE = 40


@dataclass(frozen=True)
class TrainingReplies:
    """What the two people wrote in the training conversations."""

    owner: list[str]
    other: list[str]
    answers: list[Reply] = field(default_factory=list)  # the owner's, with what they answer


def measure_set(
    writers: Mapping[str, Sequence[Reply]],
    endings: Mapping[str, Sequence[str]],
    training: TrainingReplies,
    bits: Mapping[str, Any],
    seed: int,
    context: str = NO_CONTEXT,
) -> dict[str, Any]:
    """Return the numbers of one set.

    `writers` has the replies of "owner", "tuned" and "base", and of "other" where there is another person; `endings`
    says how each reply of "tuned" and "base" ended; `context` is what the header told the model. Without
    `training.answers` no situation is compared.
    """
    shown = ["owner", "tuned", "base", *(["other"] if writers.get("other") else [])]
    replies = {name: list(writers[name]) for name in shown}
    conversations = {reply.conversation for reply in replies["owner"]}
    habits, position = measure_habits(replies, seed)
    classified = {**replies, "base_cut": cut_to_lengths(replies["base"], replies["owner"], seed)}
    log_probabilities = classify_replies({"owner": training.owner, "other": training.other}, classified, seed)
    all_conversations = {reply.conversation for rows in classified.values() for reply in rows}
    resamples = resample(all_conversations, seed)
    taken_for = measure_taken_for(log_probabilities, classified, resamples)
    habits.append(
        make_row("taken_for_owner", "Classified as the owner", {name: 1 - taken_for[name]["owner"] for name in shown})
    )
    habits.append(make_row("telling_apart", "Separated by a classifier", measure_separation(replies, seed)))
    controls: dict[str, Any] = {}
    if "other" in replies:
        controls["pools_taken_for_owner"] = {
            name: share_of_pools_taken_for_owner(log_probabilities[name], seed) for name in classified
        }
        controls["shuffled_labels"] = measure_shuffled_labels(replies["owner"], replies["other"], seed)._asdict()
    phrases = TrainingPhrases(training.owner)
    models = {name: replies[name] for name in ("owner", "tuned", "base")}
    return {
        "num_replies": len(replies["owner"]),
        "num_conversations": len(conversations),
        "bits": dict(bits),
        "habits": habits,
        "position": position._asdict() if position else None,
        "situations": (
            measure_situations(training.answers, models, resamples, context)
            if training.answers
            else {"rows": [], "kept": None, "base_kept": None}
        ),
        "excess": measure_excess(replies, phrases, [*training.owner, *training.other], resamples),
        "taken_for": {
            name: {label: interval_of(shares)._asdict() for label, shares in by_class.items()}
            for name, by_class in taken_for.items()
        },
        "side_of_the_owner": _side_of_the_owner(log_probabilities, replies, resamples),
        "controls": controls,
        "writers": {name: describe_writer(rows) for name, rows in replies.items()},
        "endings": {name: dict(sorted(Counter(kinds).items())) for name, kinds in endings.items()},
        "copies": {name: describe_copies(phrases, [reply.text for reply in rows]) for name, rows in models.items()},
    }


def cut_to_lengths(replies: Sequence[Reply], models: Sequence[Reply], seed: int) -> list[Reply]:
    """Return `replies` cut to lengths drawn from `models`: a control for writing short alone."""
    generator = np.random.default_rng(seed)
    lengths = generator.choice([len(model.text) for model in models], size=len(replies))
    return [Reply(reply.conversation, reply.text[:length]) for reply, length in zip(replies, lengths, strict=True)]


def _side_of_the_owner(
    log_probabilities: Mapping[str, FloatArray], replies: Mapping[str, Sequence[Reply]], resamples: Resamples
) -> dict[str, float] | None:
    """Return where the tuned model is between the other person (0) and the owner (1), or None where they are too alike.

    A model that learnt both people equally is at .5, however often the classifier errs; the base plays no part.
    """
    if "other" not in replies:
        return None
    owner_column, other_column = CLASSES.index("owner"), CLASSES.index("other")
    share: dict[str, FloatArray] = {}
    for name in ("owner", "tuned", "other"):
        is_nearer = log_probabilities[name][:, owner_column] > log_probabilities[name][:, other_column]
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
    """Return the bits per character of each group under both models, and their differences, each with its interval.

    Groups: "owner", "shuffled" (the same replies in other contexts), and "other" when there is another person.
    `specificity` is the drop on the owner's replies minus the drop on the other person's; above 0, the model learnt
    this person. `relevance` is how many bits the right context saves the tuned model, `base_relevance` the base;
    `relevance_gain` is the difference.
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
    saved = {model: per_char["shuffled"][model] - per_char["owner"][model] for model in ("tuned", "base")}
    measured["relevance"] = interval_of(saved["tuned"])
    measured["base_relevance"] = interval_of(saved["base"])
    measured["relevance_gain"] = interval_of(saved["tuned"] - saved["base"])
    if "other" in per_char:
        measured["specificity"] = interval_of(per_char["owner"]["drop"] - per_char["other"]["drop"])
    return {name: interval._asdict() for name, interval in measured.items()}


def jensen_shannon(first: FloatArray, second: FloatArray) -> FloatArray:
    """Return the Jensen-Shannon divergence in bits, 0 (the same) to 1 (nothing shared), along the last axis.

    Where only one side has no counts at all (no emoji, for example) it is 1; where both have none it is 0.
    """
    first_total, second_total = first.sum(-1, keepdims=True), second.sum(-1, keepdims=True)
    p = first / np.maximum(first_total, 1e-12)
    q = second / np.maximum(second_total, 1e-12)
    middle = np.maximum((p + q) / 2, 1e-300)
    entropies = _x_log2_x(p).sum(-1) / 2 + _x_log2_x(q).sum(-1) / 2
    divergence = entropies - ((p + q) / 2 * np.log2(middle)).sum(-1)
    is_first_empty, is_second_empty = first_total[..., 0] == 0, second_total[..., 0] == 0
    divergence = np.where(is_first_empty | is_second_empty, 1.0, divergence)
    return np.clip(np.where(is_first_empty & is_second_empty, 0.0, divergence), 0.0, 1.0)


def _x_log2_x(values: FloatArray) -> FloatArray:
    result: FloatArray = values * np.log2(np.maximum(values, 1e-300))
    return result


def length_distance(first: FloatArray, second: FloatArray, lengths: FloatArray) -> FloatArray:
    """Return the Wasserstein-1 distance between two sets of lengths, in log(1 + characters).

    `lengths` are the categories' lengths in ascending order, along the last axis of the counts.
    """
    first_share = np.cumsum(first / np.maximum(first.sum(-1, keepdims=True), 1e-12), axis=-1)
    second_share = np.cumsum(second / np.maximum(second.sum(-1, keepdims=True), 1e-12), axis=-1)
    steps = np.diff(np.log1p(lengths))
    distance: FloatArray = (np.abs(first_share - second_share)[..., :-1] * steps).sum(-1)
    return distance


def count_per_conversation(
    habit: Habit, writers: Mapping[str, Sequence[Reply]], row_of: Mapping[int, int]
) -> tuple[dict[str, FloatArray], list[str]]:
    """Return for each writer a matrix of counts (conversations, categories), and the categories.

    `row_of` gives the row of each conversation.
    """
    counted = {
        name: [(reply.conversation, habit.count(reply.text)) for reply in replies] for name, replies in writers.items()
    }
    found = {category for rows in counted.values() for _, counts in rows for category in counts}
    categories = sorted(found, key=lambda text: int(text)) if habit.name == "length" else sorted(found)
    column_of = {category: column for column, category in enumerate(categories)}
    matrices: dict[str, FloatArray] = {}
    for name, rows in counted.items():
        matrix = np.zeros((len(row_of), max(len(categories), 1)))
        for conversation, counts in rows:
            for category, count in counts.items():
                matrix[row_of[conversation], column_of[category]] += count
        matrices[name] = matrix
    return matrices, categories


def measure_habit(
    habit: Habit, writers: Mapping[str, Sequence[Reply]], estimate: SplitDraws, resampled: SplitDraws
) -> dict[str, FloatArray]:
    """Return for each writer its distance from the owner: element 0 the estimate, then one per draw."""
    matrices, categories = count_per_conversation(habit, writers, estimate.row_of)
    distances: dict[str, list[float]] = {name: [] for name in writers}
    for draws in (estimate, resampled):
        # One draw at a time: all at once would take gigabytes for the trigrams of a long chat.
        for reference_weights, compared_weights in zip(draws.reference, draws.compared, strict=True):
            reference = reference_weights @ matrices["owner"]
            for name in writers:
                compared = compared_weights @ matrices[name]
                if habit.name == "length":
                    lengths = np.array([float(category) for category in categories])
                    distance = length_distance(reference, compared, lengths)
                else:
                    distance = jensen_shannon(reference, compared)
                distances[name].append(float(distance.mean()))
    return {name: np.array(values) for name, values in distances.items()}


def make_row(name: str, label: str, distances: Mapping[str, FloatArray]) -> dict[str, object]:
    """Return one row of the report from the distances (estimate, then draws) of owner, base, tuned and others.

    `gap_closed` is 0 for the base and 1 for the second half of the owner's own replies. A habit is measurable only
    where the base is farther than the owner's own interval; else there is no gap to close.
    """
    row: dict[str, object] = {"name": name, "label": label}
    intervals = {writer: interval_of(values) for writer, values in distances.items()}
    for writer, interval in intervals.items():
        row[writer] = interval._asdict()
    row["is_measurable"] = is_measurable = intervals["base"].low > intervals["owner"].high
    row["is_closer"] = is_measurable and intervals["tuned"].high < intervals["base"].low
    row["is_farther"] = intervals["tuned"].low > intervals["base"].high
    row["is_told_from_owner"] = intervals["tuned"].low > intervals["owner"].high
    row["gap_closed"] = None
    if is_measurable:
        row["gap_closed"] = {
            writer: interval_of(share_of_gap(distances["base"], values, distances["owner"]))._asdict()
            for writer, values in distances.items()
            if writer != "base"
        }
    return row


def share_of_gap(base: FloatArray, writer: FloatArray, owner: FloatArray) -> FloatArray:
    """Return the position of `writer` between the base (0) and the owner (1): the estimate, then the draws.

    The ratio is linearised around the estimate (delta method): a plain ratio diverges where a draw's gap is near zero.
    The owner is at 1 by definition; its draws are its own spread.
    """
    gap = float(base[0] - owner[0])
    share = float(base[0] - writer[0]) / gap
    moved: FloatArray = (
        (base[0] - owner) / gap if writer is owner else share + ((base - writer) - share * (base - owner)) / gap
    )
    return moved


def measure_habits(
    writers: Mapping[str, Sequence[Reply]], seed: int, num_draws: int = NUM_DRAWS
) -> tuple[list[dict[str, object]], Interval | None]:
    """Return one row per habit for the replies of "owner", "base", "tuned" and other writers, and the median position.

    The position of the tuned model between base (0) and owner (1) is the median over the measurable habits; a habit in
    which only the tuned model differs from the owner counts as 0. It is None where base and owner differ in none.
    """
    conversations = {reply.conversation for replies in writers.values() for reply in replies}
    estimate = split_draws(conversations, 0, SPLITS_OF_ESTIMATE, seed)
    resampled = split_draws(conversations, num_draws, SPLITS_PER_DRAW, seed + 1)
    rows, positions = [], []
    for habit in HABITS:
        distances = measure_habit(habit, writers, estimate, resampled)
        rows.append(make_row(habit.name, habit.label, distances))
        if rows[-1]["is_measurable"]:
            positions.append(share_of_gap(distances["base"], distances["tuned"], distances["owner"]))
        elif rows[-1]["is_farther"]:
            positions.append(np.zeros(1 + num_draws))
    is_any_measurable = any(row["is_measurable"] for row in rows)
    return rows, interval_of(np.median(positions, axis=0)) if is_any_measurable else None
