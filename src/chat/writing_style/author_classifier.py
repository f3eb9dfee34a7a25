"""Classifiers of authorship: character n-grams and logistic regression, always tested on conversations they never saw.

Two questions. Whose reply is this: the owner's, the other person's or the untouched base model's (`classify_replies`)?
How well does a classifier learn to separate a writer's replies from the owner's (`measure_separation`)?
It reads no files; the intervals come from the same resampled conversations as those of the habits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from writing_style.resampling import FloatArray, Interval, Resamples, interval_of, split_draws
from writing_style.writing_habits import Reply

CLASSES = ("owner", "other", "base")
MAX_TRAINING_REPLIES = 2_000  # of each person; more gain little (accuracy on one message: 92 % with 100, 94 % with 500)
NUM_FOLDS = 5
POOL_SIZE = 5  # one chat message says little about its author
SEPARATION_FOLDS = 3
SEPARATION_SPLITS = 10
SEPARATION_DRAWS = 60  # three fits per writer each: the slowest step after generating replies
NUM_LABEL_SHUFFLES = 20


def make_features() -> TfidfVectorizer:
    """Return the features: runs of one to four characters inside words, capital letters kept."""
    return TfidfVectorizer(
        analyzer="char_wb", ngram_range=(1, 4), sublinear_tf=True, min_df=2, lowercase=False, dtype=np.float64
    )


def make_classifier(solver: str = "lbfgs") -> LogisticRegression:
    """Return the unfitted classifier; all classes weigh the same whatever their sizes."""
    return LogisticRegression(C=4.0, class_weight="balanced", max_iter=1_000, solver=solver)


def fold_of_conversations(conversations: Sequence[int], num_folds: int, seed: int) -> dict[int, int]:
    """Return the fold of each conversation: random folds of equal size."""
    numbers = sorted(set(conversations))
    order = np.random.default_rng(seed).permutation(len(numbers))
    return {numbers[place]: position % num_folds for position, place in enumerate(order)}


def classify_replies(
    training: Mapping[str, Sequence[str]], writers: Mapping[str, Sequence[Reply]], seed: int
) -> dict[str, FloatArray]:
    """Return for each writer the log-probabilities of its replies, shaped (replies, classes).

    `training` holds "owner" and "other" replies from the training conversations. The base's replies exist only
    for held-out contexts, so the classifier learns them from the other folds. (Without the class "base" it took 34 % of
    texts that resemble neither person for the owner's.)
    """
    generator = np.random.default_rng(seed)
    people: list[tuple[str, str]] = []
    for name in ("owner", "other"):
        texts = list(training[name])
        chosen = generator.permutation(len(texts))[:MAX_TRAINING_REPLIES]
        people += [(name, texts[place]) for place in sorted(chosen)]
    folds = fold_of_conversations([reply.conversation for rows in writers.values() for reply in rows], NUM_FOLDS, seed)
    log_probabilities = {name: np.full((len(rows), len(CLASSES)), -np.inf) for name, rows in writers.items()}
    for fold in range(NUM_FOLDS):
        base_texts = [("base", reply.text) for reply in writers["base"] if folds[reply.conversation] != fold]
        labels, writings = zip(*people, *base_texts, strict=True)
        features = make_features()
        classifier = make_classifier().fit(features.fit_transform(writings), labels)
        columns = [CLASSES.index(label) for label in classifier.classes_]
        for name, rows in writers.items():
            places = [place for place, reply in enumerate(rows) if folds[reply.conversation] == fold]
            if places:
                features_of_rows = features.transform([rows[place].text for place in places])
                log_probabilities[name][np.ix_(places, columns)] = classifier.predict_log_proba(features_of_rows)
    return log_probabilities


def measure_taken_for(
    log_probabilities: Mapping[str, FloatArray], writers: Mapping[str, Sequence[Reply]], resamples: Resamples
) -> dict[str, dict[str, FloatArray]]:
    """Return for each writer the share of its replies assigned to each class: the estimate, then the draws."""
    one_of_each = np.eye(len(CLASSES))
    shares: dict[str, dict[str, FloatArray]] = {}
    for name, rows in writers.items():
        choices = log_probabilities[name].argmax(axis=1)
        totals = resamples.total(
            (reply.conversation, one_of_each[choice]) for reply, choice in zip(rows, choices, strict=True)
        )
        share = totals / np.maximum(totals.sum(axis=1, keepdims=True), 1e-12)
        shares[name] = {label: share[:, column] for column, label in enumerate(CLASSES)}
    return shares


def share_of_pools_taken_for_owner(log_probabilities: FloatArray, seed: int) -> float:
    """Return the share of random pools of five replies that are classified as the owner's."""
    order = np.random.default_rng(seed).permutation(len(log_probabilities))
    pools = [order[start : start + POOL_SIZE] for start in range(0, len(order) - POOL_SIZE + 1, POOL_SIZE)]
    sums = np.array([np.maximum(log_probabilities[pool], -50.0).sum(axis=0) for pool in pools])
    return float((sums.argmax(axis=1) == CLASSES.index("owner")).mean())


def measure_separation(writers: Mapping[str, Sequence[Reply]], seed: int) -> dict[str, FloatArray]:
    """Return for each writer how well a classifier separates its replies from the owner's: the estimate, then draws.

    The number is the area under the ROC curve out of fold: .5 is chance, 1 is always right. As with the habits, the
    owner's replies of one half of the conversations are compared with each writer's of the other half.
    """
    features = make_features()
    matrix = features.fit_transform([reply.text for rows in writers.values() for reply in rows])
    conversations = {reply.conversation for rows in writers.values() for reply in rows}
    estimate = split_draws(conversations, 0, SEPARATION_SPLITS, seed)
    resampled = split_draws(conversations, SEPARATION_DRAWS, 1, seed + 1)
    places = {name: np.array([estimate.row_of[reply.conversation] for reply in rows]) for name, rows in writers.items()}
    owner = places["owner"]
    starts = dict(zip(writers, np.cumsum([0, *map(len, writers.values())]), strict=False))  # of each one's rows
    rows_of = {name: starts[name] + np.arange(len(places[name])) for name in writers}
    areas: dict[str, list[float]] = {name: [] for name in writers}
    for draws in (estimate, resampled):
        for number, (references, compareds) in enumerate(zip(draws.reference, draws.compared, strict=True)):
            folds = np.random.default_rng([seed, number]).permutation(len(draws.row_of)) % SEPARATION_FOLDS
            for name, other in places.items():
                rows = np.concatenate([rows_of["owner"], rows_of[name]])
                labels = np.repeat([1, 0], [len(owner), len(other)])
                row_folds = np.concatenate([folds[owner], folds[other]])
                found = [
                    _area_out_of_fold(
                        matrix, rows, labels, np.concatenate([reference[owner], compared[other]]), row_folds
                    )
                    for reference, compared in zip(references, compareds, strict=True)
                ]
                areas[name].append(float(np.mean(found)))
    return {name: np.array(values) for name, values in areas.items()}


def _area_out_of_fold(
    matrix: Any, rows: NDArray[Any], labels: NDArray[Any], weights: FloatArray, folds: NDArray[Any]
) -> float:
    """Return the mean area over the folds.

    For each of `rows` of `matrix`: its label (1 for the owner), its weight (how often it was drawn; 0 leaves it out),
    and the fold it is tested in.
    """
    areas = []
    for fold in range(SEPARATION_FOLDS):  # averaged over folds: scores of different classifiers do not compare
        is_fitted = (weights > 0) & (folds != fold)
        is_tested = (weights > 0) & (folds == fold)
        if len(set(labels[is_fitted])) < 2 or len(set(labels[is_tested])) < 2:
            continue
        # A third faster than the default solver, with the same result for two classes.
        classifier = make_classifier("liblinear").fit(
            matrix[rows[is_fitted]], labels[is_fitted], sample_weight=weights[is_fitted]
        )
        scores = classifier.decision_function(matrix[rows[is_tested]])
        areas.append(area_under_curve(scores, labels[is_tested], weights[is_tested]))
    return float(np.mean(areas)) if areas else 0.5


def area_under_curve(scores: FloatArray, labels: NDArray[Any], weights: FloatArray) -> float:
    """Return the probability that a reply labelled 1 scores above one labelled 0 (20 times faster than scikit-learn's).

    >>> area_under_curve(np.array([0.9, 0.4, 0.4]), np.array([1, 1, 0]), np.ones(3))
    0.75
    """
    is_positive = labels == 1
    differences = scores[is_positive][:, None] - scores[~is_positive][None, :]
    pair_weights = weights[is_positive][:, None] * weights[~is_positive][None, :]
    return float(((np.sign(differences) + 1) / 2 * pair_weights).sum() / pair_weights.sum())


def measure_shuffled_labels(owner: Sequence[Reply], other: Sequence[Reply], seed: int) -> Interval:
    """Return how well a classifier separates the two people when the labels are shuffled.

    Anything but .5 would mean that the same text is in training and test. The interval is that of the mean over the
    shuffles.
    """
    rows = [*owner, *other]
    matrix = make_features().fit_transform([reply.text for reply in rows])
    folds_by_conversation = fold_of_conversations([reply.conversation for reply in rows], SEPARATION_FOLDS, seed)
    folds = np.array([folds_by_conversation[reply.conversation] for reply in rows])
    generator = np.random.default_rng(seed)
    labels = np.repeat([1, 0], [len(owner), len(other)])
    areas = np.array(
        [
            _area_out_of_fold(matrix, np.arange(len(rows)), generator.permutation(labels), np.ones(len(rows)), folds)
            for _ in range(NUM_LABEL_SHUFFLES)
        ]
    )
    means = generator.choice(areas, size=(1_000, len(areas))).mean(axis=1)
    return interval_of(np.concatenate([[areas.mean()], means]))
