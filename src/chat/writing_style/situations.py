"""Does a reply fit its situation? What the replies show of the question before them, the partner and the hour.

A classifier learns from the owner's training replies which replies follow a question, which come first in a
conversation, to whom and at what hour they are written. Applied to held-out replies it tells how much they show of their
situation: the area under the curve, .5 for none. A model that writes like the owner, but not to the point, is at .5. It
reads no files; the verdict is left to `style_verdict`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from sklearn.feature_extraction.text import TfidfVectorizer

from common.conversation_header import CONTEXTS, NO_CONTEXT, WHO, WHO_AND_WHEN, part_of_day
from writing_style.author_classifier import make_classifier, make_features
from writing_style.member_names import name_before, without_names
from writing_style.resampling import FloatArray, Resamples, interval_of
from writing_style.writing_habits import Reply, Situation, split_messages

if TYPE_CHECKING:
    from writing_style.held_out_replies import Exchange, HeldOutData

CHANCE = 0.5
HEARD_TURNS = 3  # a topic goes on for a few turns
# The lowest end of the owner's own interval: below it, the owner's replies do not show the situation.
MIN_OWNER_AREA = 0.55
MIN_REPLIES_OF_CLASS = 8
MAX_TRAINING_REPLIES = 2_000  # to learn from; more take time and gain little


@dataclass(frozen=True)
class Kind:
    """One kind of situation: its name in the JSON, its label, the class of a situation (None: not known)."""

    name: str
    label: str
    class_of: Callable[[Situation], str | None]
    contexts: tuple[str, ...] = CONTEXTS  # with which a model can know it: partner and hour stand in the header alone


def is_after_question(situation: Situation) -> str:
    """Return the class by whether the last message heard ends with a question mark."""
    return "question" if split_messages(situation.heard)[-1].rstrip().endswith("?") else "other"


def when_begun(situation: Situation) -> str | None:
    """Return the part of the day in which the conversation began; None where it is not known."""
    return None if situation.hour is None else part_of_day(situation.hour)


KINDS = (
    Kind("question", "After a question or not", is_after_question),
    Kind("first", "First of a conversation or not", lambda found: "first" if found.is_first else "later"),
    Kind("partner", "To whom", lambda found: found.partner or None, (WHO, WHO_AND_WHEN)),
    Kind("hour", "At what hour", when_begun, (WHO_AND_WHEN,)),
)
TOPIC = "topic"
TOPIC_LABEL = "What was spoken of"


def situate(exchange: Exchange, text: str, data: HeldOutData) -> Reply:
    """Return the reply `text` to the context of `exchange`, with its situation."""
    about = data.about.get(exchange.conversation)
    heard = [message["content"] for message in exchange.context]
    partner = name_before(heard[-1], data.members) if heard else None
    if partner is None and about is not None:
        partner = about.partners[0] if len(about.partners) == 1 else about.chat
    hour = about.started_at[11:13] if about is not None else ""
    return Reply(
        exchange.conversation,
        text,
        Situation(
            heard="\n".join(without_names(turn, data.members) for turn in heard[-HEARD_TURNS:]),
            is_first=not any(message["role"] == "assistant" for message in exchange.context),
            partner=partner or "",
            hour=int(hour) if hour.isdecimal() else None,
        ),
    )


def measure_situations(
    training: Sequence[Reply],
    writers: Mapping[str, Sequence[Reply]],
    resamples: Resamples,
    context: str = NO_CONTEXT,
) -> dict[str, Any]:
    """Return a row for each kind of situation that the data knows, and the mean of what the two models keep of them.

    `training` are the owner's replies of the training conversations, `writers` the held-out replies of "owner", "tuned"
    and "base", all with their situations. `context` is what the header told the model. A row is measurable where the
    owner's replies show the situation. What is kept, the share of it that a model's replies show, is 0 for a model whose
    replies do not depend on the situation and 1 for the owner; the means, `kept` of the tuned model and `base_kept`, are
    taken over what stands in a prompt, and are None where no such row is measurable.
    """
    areas: dict[str, dict[str, FloatArray]] = {}
    matrix_of = _features(training, writers)
    for kind in KINDS:
        found = _measure_kind(kind, training, writers, matrix_of, resamples)
        if found is not None:
            areas[kind.name] = found
    areas[TOPIC] = _measure_topic(training, writers, resamples)
    labels = {kind.name: kind.label for kind in KINDS} | {TOPIC: TOPIC_LABEL}
    in_prompt = {kind.name for kind in KINDS if context in kind.contexts} | {TOPIC}
    rows: list[dict[str, Any]] = []
    kept: dict[str, list[FloatArray]] = {"tuned": [], "base": []}
    for name, area in areas.items():
        intervals = {writer: interval_of(values) for writer, values in area.items()}
        is_measurable = intervals["owner"].low >= MIN_OWNER_AREA
        row: dict[str, Any] = {
            "name": name,
            "label": labels[name],
            **{writer: interval._asdict() for writer, interval in intervals.items()},
            "is_in_prompt": name in in_prompt,
            "is_measurable": is_measurable,
            "is_told_from_owner": is_measurable and intervals["tuned"].high < intervals["owner"].low,
            "kept": None,
        }
        if is_measurable:
            shares = {model: _share_kept(area[model], area["owner"]) for model in kept}
            row["kept"] = interval_of(shares["tuned"])._asdict()
            if name in in_prompt:
                for model, share in shares.items():
                    kept[model].append(share)
        rows.append(row)
    means = {
        model: interval_of(np.mean(shares, axis=0))._asdict() if shares else None for model, shares in kept.items()
    }
    return {"rows": rows, "kept": means["tuned"], "base_kept": means["base"]}


def _share_kept(model: FloatArray, owner: FloatArray) -> FloatArray:
    share = (model[0] - CHANCE) / (owner[0] - CHANCE)
    moved: FloatArray = share + ((model - CHANCE) - share * (owner - CHANCE)) / (owner[0] - CHANCE)  # delta method
    return moved


def _features(training: Sequence[Reply], writers: Mapping[str, Sequence[Reply]]) -> dict[str, Any]:
    if not training:
        return {}
    features = make_features()
    matrices = {"training": features.fit_transform([reply.text for reply in training])}
    return matrices | {name: features.transform([reply.text for reply in rows]) for name, rows in writers.items()}


def _classes(kind: Kind, rows: Sequence[Reply]) -> NDArray[Any]:
    return np.array([kind.class_of(row.situation) if row.situation else None for row in rows], dtype=object)


def _measure_kind(
    kind: Kind,
    training: Sequence[Reply],
    writers: Mapping[str, Sequence[Reply]],
    matrix_of: Mapping[str, Any],
    resamples: Resamples,
) -> dict[str, FloatArray] | None:
    """Return each writer's area (the estimate, then the draws), the mean over the classes; None without two classes."""
    learnt = _classes(kind, training)
    held_out = {name: _classes(kind, rows) for name, rows in writers.items()}

    def is_frequent(name: str) -> bool:
        return all(
            min((found == name).sum(), (found != name).sum()) >= MIN_REPLIES_OF_CLASS
            for found in (learnt, held_out["owner"])
        )

    names = sorted({name for name in learnt if name is not None})
    frequent = [name for name in names if is_frequent(name)]
    if len(frequent) == 2 == len(names):
        frequent = frequent[:1]  # two classes are one question
    areas: dict[str, list[FloatArray]] = {name: [] for name in writers}
    for class_name in frequent:
        is_known = np.array([name is not None for name in learnt])
        classifier = make_classifier("liblinear").fit(
            matrix_of["training"][np.flatnonzero(is_known)], (learnt == class_name)[is_known]
        )
        for name, rows in writers.items():
            scores = classifier.decision_function(matrix_of[name])
            weights = resamples.weights[:, [resamples.row_of[row.conversation] for row in rows]]
            areas[name].append(_weighted_areas(scores, held_out[name] == class_name, weights))
    return {name: np.mean(found, axis=0) for name, found in areas.items()} if frequent else None


def _weighted_areas(scores: FloatArray, is_positive: NDArray[Any], weights: FloatArray) -> FloatArray:
    """Return the area under the curve for each row of `weights`, shaped (draws, replies)."""
    wins = (np.sign(scores[is_positive][:, None] - scores[~is_positive][None, :]) + 1) / 2
    positive, negative = weights[:, is_positive], weights[:, ~is_positive]
    total = positive.sum(axis=1) * negative.sum(axis=1)
    won = np.einsum("dp,pn,dn->d", positive, wins, negative, optimize=True)
    return np.where(total > 0, won / np.maximum(total, 1e-12), CHANCE)


def _measure_topic(
    training: Sequence[Reply], writers: Mapping[str, Sequence[Reply]], resamples: Resamples
) -> dict[str, FloatArray]:
    """Return how often a reply has more in common with the turns before it than with those before another reply.

    In common are rare runs of letters, so that a word counts whatever prefix it has.
    """
    features = TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 5), sublinear_tf=True, dtype=np.float64)
    heard = [row.situation.heard if row.situation else "" for row in [*training, *writers["owner"]]]
    features.fit([*heard, *(row.text for row in training)])
    areas = {}
    for name, rows in writers.items():
        replies = features.transform([row.text for row in rows])
        contexts = features.transform([row.situation.heard if row.situation else "" for row in rows])
        similar = (replies @ contexts.T).toarray()
        conversations = np.array([row.conversation for row in rows])
        is_elsewhere = conversations[:, None] != conversations[None, :]
        own = similar.diagonal()[:, None]
        wins = ((np.sign(own - similar) + 1) / 2 * is_elsewhere).sum(axis=1) / np.maximum(is_elsewhere.sum(axis=1), 1)
        totals = resamples.total((row.conversation, (float(win), 1.0)) for row, win in zip(rows, wins, strict=True))
        areas[name] = totals[:, 0] / np.maximum(totals[:, 1], 1e-12)
    return areas
