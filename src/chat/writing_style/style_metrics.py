"""Habits of writing as counts, how far two writers' counts lie apart, and intervals by resampling conversations.

Each habit turns a reply into counts of categories (how its messages end, which emoji, which words). Two writers are
compared on equal terms: the conversations are split into two halves, the owner's replies of one half are the
reference, and everybody, the owner included, is measured on the other half. So the owner's own distance is the ceiling
that a perfect imitation reaches, at the same number of replies and with the same upward bias of small samples.
It reads no files and loads no model; what the numbers mean is decided in `style_verdict.py`.
"""

from __future__ import annotations

import re
import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import emoji
import numpy as np
import regex
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

NUM_DRAWS = 400  # resampled sets of conversations; the ends of a 95 % interval then move by about 1 % of its width
SPLITS_PER_DRAW = 4  # averaging over a few splits takes most of a single split's luck out
SPLITS_OF_ESTIMATE = 40
INTERVAL_PERCENT = 95.0


class Reply(NamedTuple):
    """One turn, its messages separated by line breaks, and the number of the conversation it belongs to."""

    conversation: int
    text: str


class Interval(NamedTuple):
    """A measured value and the ends of its 95 % interval."""

    value: float
    low: float
    high: float


# --- From a reply to counts --------------------------------------------------------------------------------------

# The forms of Hebrew and English chats: חחח, haha, lol, xd
LAUGHTER_RE = re.compile(r"ח{2,}|\b(?:a*(?:ha){2,}h?|lo+l|xd+)\b", re.IGNORECASE)
LAUGHING_EMOJI = ("😂", "🤣", "😹")
ELONGATED_RE = re.compile(r"([^\W\d_])\1\1")
WORD_RE = regex.compile(r"[\p{L}\p{M}\p{N}]+(?:['\"׳״’-][\p{L}\p{M}\p{N}]+)*")
PUNCTUATION = ".,!?…:;-()\"'"
SCRIPTS = {  # first and last letter of what chats in this part of the world mix; the rest is "other"
    "Hebrew": ("\u05d0", "\u05ea"),
    "Arabic": ("\u0620", "\u06d3"),
    "Cyrillic": ("\u0400", "\u04ff"),
}


def split_messages(text: str) -> list[str]:
    """Return the messages of a turn. An empty reply is one empty message."""
    return [line for line in text.split("\n") if line.strip()] or [""]


def list_emoji(text: str) -> list[str]:
    """Return the emoji of `text`; a family or a skin tone is one emoji.

    >>> list_emoji("סבבה 👍🏽❤️")
    ['👍🏽', '❤️']
    """
    return [found["emoji"] for found in emoji.emoji_list(text)]


def count_lengths(text: str) -> Counter[str]:
    """Count messages by their number of characters."""
    return Counter(str(len(message)) for message in split_messages(text))


def count_bursts(text: str) -> Counter[str]:
    """Count the turn under its number of messages."""
    return Counter([str(min(len(split_messages(text)), 4))])


def count_endings(text: str) -> Counter[str]:
    """Count how each message ends: a mark, a repeated mark, dots, an emoji, or nothing.

    >>> count_endings("בטח!!\\nיאללה")
    Counter({'repeated': 1, 'nothing': 1})
    """
    return Counter(_ending(message.rstrip()) for message in split_messages(text))


def _ending(message: str) -> str:
    if message.endswith(("..", "…")):
        return "dots"
    if message[-2:-1] in ("?", "!") and message[-1:] in ("?", "!"):
        return "repeated"
    if message[-1:] in (".", "?", "!"):
        return message[-1:]
    found = emoji.emoji_list(message[-12:])  # the longest emoji (a family) has 11 code points
    return "emoji" if found and found[-1]["match_end"] == len(message[-12:]) else "nothing"


def count_punctuation(text: str) -> Counter[str]:
    """Count punctuation marks, and the messages that have none."""
    counts: Counter[str] = Counter(character for character in text if character in PUNCTUATION)
    counts["none"] = sum(not any(mark in message for mark in PUNCTUATION) for message in split_messages(text))
    return counts


def count_emoji_use(text: str) -> Counter[str]:
    """Count messages with and without emoji."""
    return Counter("with" if list_emoji(message) else "without" for message in split_messages(text))


def count_emoji(text: str) -> Counter[str]:
    """Count each emoji."""
    return Counter(list_emoji(text))


def count_laughter(text: str) -> Counter[str]:
    """Count each message under how it laughs, and how long.

    >>> count_laughter("חחחח די\\nלא")
    Counter({'ח 4': 1, 'none': 1})
    """
    return Counter(_laughter(message) for message in split_messages(text))


def _laughter(message: str) -> str:
    match = LAUGHTER_RE.search(message)
    if match is None:
        return "emoji" if any(face in message for face in LAUGHING_EMOJI) else "none"
    if match[0].startswith("ח"):
        return f"ח {min(len(match[0]), 6)}"
    return match[0][0].lower()


def count_elongation(text: str) -> Counter[str]:
    """Count messages with and without a letter held for three or more ("סבבהההה"); laughter is not counted twice."""
    return Counter(
        "with" if ELONGATED_RE.search(LAUGHTER_RE.sub(" ", message)) else "without" for message in split_messages(text)
    )


def count_scripts(text: str) -> Counter[str]:
    """Count letters by alphabet."""
    return Counter(_script(character) for character in text if character.isalpha())


def _script(letter: str) -> str:
    if letter.isascii():
        return "Latin"
    return next((name for name, (first, last) in SCRIPTS.items() if first <= letter <= last), "other")


def list_words(text: str) -> list[str]:
    """Return the words of `text` in lower case; Hebrew prefixes stay on, as people write them."""
    return [match[0] for match in WORD_RE.finditer(text.lower())]


def count_words(text: str) -> Counter[str]:
    """Count words."""
    return Counter(list_words(text))


def count_trigrams(text: str) -> Counter[str]:
    """Count runs of three characters, message by message, with one space on both sides."""
    padded = [f" {message} " for message in split_messages(text)]
    return Counter(message[start : start + 3] for message in padded for start in range(len(message) - 2))


# --- From counts to distances ------------------------------------------------------------------------------------


def jensen_shannon(first: FloatArray, second: FloatArray) -> FloatArray:
    """Return the Jensen-Shannon divergence in bits, 0 (the same) to 1 (nothing shared), along the last axis.

    Against somebody who has none of the things counted (no emoji at all) it is 1; between two such people it is 0.
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
    """Return how far log(1 + characters) must be moved on average to turn one set of lengths into the other.

    (Wasserstein-1.) `lengths` are the categories' lengths in ascending order, along the last axis of the counts.
    """
    first_share = np.cumsum(first / np.maximum(first.sum(-1, keepdims=True), 1e-12), axis=-1)
    second_share = np.cumsum(second / np.maximum(second.sum(-1, keepdims=True), 1e-12), axis=-1)
    steps = np.diff(np.log1p(lengths))
    distance: FloatArray = (np.abs(first_share - second_share)[..., :-1] * steps).sum(-1)
    return distance


@dataclass(frozen=True)
class Habit:
    """One thing to compare: its name in the JSON, its words on the page, and how a reply is counted."""

    name: str
    label: str
    count: Callable[[str], Counter[str]]


HABITS = (
    Habit("length", "Length of a message", count_lengths),
    Habit("burst", "Messages in a row", count_bursts),
    Habit("endings", "How a message ends", count_endings),
    Habit("punctuation", "Punctuation", count_punctuation),
    Habit("emoji_rate", "How often an emoji", count_emoji_use),
    Habit("emoji_set", "Which emoji", count_emoji),
    Habit("laughter", "Laughter", count_laughter),
    Habit("elongation", "Letters held (sooo)", count_elongation),
    Habit("scripts", "Mix of alphabets", count_scripts),
    Habit("words", "Choice of words", count_words),
    Habit("trigrams", "Spelling (three characters)", count_trigrams),
)


# --- Splits, draws, intervals ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Draws:
    """Which conversations count how often: `reference` and `compared`, shaped (draws, splits, conversations).

    In each split a conversation lies on one side only, however often it was drawn.
    """

    conversations: list[int]
    reference: FloatArray
    compared: FloatArray


def make_draws(conversations: Iterable[int], num_draws: int, num_splits: int, seed: int) -> Draws:
    """Draw conversations with replacement and split them in halves; `num_draws` 0 takes every conversation once."""
    numbers = sorted(set(conversations))
    generator = np.random.default_rng(seed)
    weights = (
        generator.multinomial(len(numbers), [1 / len(numbers)] * len(numbers), size=num_draws).astype(np.float64)
        if num_draws
        else np.ones((1, len(numbers)))
    )
    side = np.arange(len(numbers)) % 2 == 0
    sides = generator.permuted(np.broadcast_to(side, (len(weights), num_splits, len(numbers))), axis=-1)
    return Draws(numbers, weights[:, None, :] * sides, weights[:, None, :] * ~sides)


def count_per_conversation(
    habit: Habit, writers: Mapping[str, Sequence[Reply]], conversations: Sequence[int]
) -> tuple[dict[str, FloatArray], list[str]]:
    """Return for each writer a matrix of counts (conversations, categories), and the categories."""
    counted = {
        name: [(reply.conversation, habit.count(reply.text)) for reply in replies] for name, replies in writers.items()
    }
    found = {category for rows in counted.values() for _, counts in rows for category in counts}
    categories = sorted(found, key=lambda text: int(text)) if habit.name == "length" else sorted(found)
    row_of = {number: row for row, number in enumerate(conversations)}
    column_of = {category: column for column, category in enumerate(categories)}
    matrices: dict[str, FloatArray] = {}
    for name, rows in counted.items():
        matrix = np.zeros((len(conversations), max(len(categories), 1)))
        for conversation, counts in rows:
            for category, count in counts.items():
                matrix[row_of[conversation], column_of[category]] += count
        matrices[name] = matrix
    return matrices, categories


def measure_habit(
    habit: Habit, writers: Mapping[str, Sequence[Reply]], estimate: Draws, resampled: Draws
) -> dict[str, FloatArray]:
    """Return for each writer its distance from the owner: element 0 the estimate, then one per draw."""
    matrices, categories = count_per_conversation(habit, writers, estimate.conversations)
    distances: dict[str, list[float]] = {name: [] for name in writers}
    for draws in (estimate, resampled):
        # Draw by draw: all at once would take gigabytes for the three-character runs of a long chat.
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


def interval_of(values: FloatArray) -> Interval:
    """Return the 95 % interval of `values`: the estimate first, then one value per draw.

    A conversation drawn twice repeats its words, which makes every distance a little larger than in the whole set; the
    draws are therefore moved so that their mean lies on the estimate.
    """
    estimate, draws = float(values[0]), values[1:]
    draws = draws - draws.mean() + estimate
    margin = (100 - INTERVAL_PERCENT) / 2
    low, high = np.percentile(draws, [margin, 100 - margin])
    # Not beyond what was seen: a distance must not be moved below zero, nor a share above one.
    low, high = np.clip([low, high], values.min(), values.max())
    return Interval(estimate, float(low), float(high))


def make_row(name: str, label: str, distances: Mapping[str, FloatArray]) -> dict[str, object]:
    """Return one row of the report from the distances (estimate, then draws) of owner, base, tuned and others.

    `gap_closed` is 0 where the base stands and 1 where the owner's own other half stands. It is measurable only where
    the base lies outside the owner's own spread; else there is no gap to close.
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
            writer: share_of_gap(distances["base"], values, distances["owner"])._asdict()
            for writer, values in distances.items()
            if writer != "base"
        }
    return row


def share_of_gap(base: FloatArray, writer: FloatArray, owner: FloatArray) -> Interval:
    """Return how much of the way from the base (0) to the owner (1) `writer` stands.

    The ratio is linearised around the estimate (delta method): a plain ratio of draws explodes where a draw's gap is
    near zero. The owner stands at 1 by definition; its interval is its own spread on this axis.
    """
    gap = float(base[0] - owner[0])
    share = float(base[0] - writer[0]) / gap
    if writer is owner:
        return interval_of((base[0] - owner) / gap)
    return interval_of(share + ((base - writer) - share * (base - owner)) / gap)


def measure_habits(
    writers: Mapping[str, Sequence[Reply]], seed: int, num_draws: int = NUM_DRAWS
) -> list[dict[str, object]]:
    """Return one row per habit for the replies of "owner", "base", "tuned" and any other writers."""
    conversations = {reply.conversation for replies in writers.values() for reply in replies}
    estimate = make_draws(conversations, 0, SPLITS_OF_ESTIMATE, seed)
    resampled = make_draws(conversations, num_draws, SPLITS_PER_DRAW, seed + 1)
    return [make_row(habit.name, habit.label, measure_habit(habit, writers, estimate, resampled)) for habit in HABITS]


# --- Numbers a reader can see ------------------------------------------------------------------------------------


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
        "share_laughing": sum(_laughter(message) != "none" for message in messages) / len(messages),
        "share_elongated": sum(count_elongation(message)["with"] for message in messages) / len(messages),
        "share_ending_bare": sum(_ending(message.rstrip()) == "nothing" for message in messages) / len(messages),
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
    tuned: Sequence[Reply], owner: Sequence[Reply], num_words: int = 10, min_uses: int = 5
) -> dict[str, list[str]]:
    """Return the words that the tuned model overuses and underuses most against the owner (private: they are words)."""
    tuned_counts = sum((count_words(reply.text) for reply in tuned), Counter())
    owner_counts = sum((count_words(reply.text) for reply in owner), Counter())
    tuned_total, owner_total = max(tuned_counts.total(), 1), max(owner_counts.total(), 1)
    often = [word for word in tuned_counts | owner_counts if tuned_counts[word] + owner_counts[word] >= min_uses]

    def log_ratio(word: str) -> float:
        return float(
            np.log2((tuned_counts[word] + 0.5) / tuned_total) - np.log2((owner_counts[word] + 0.5) / owner_total)
        )

    often.sort(key=lambda word: (log_ratio(word), word))
    return {
        "overused": [word for word in reversed(often[-num_words:]) if log_ratio(word) > 1],
        "underused": [word for word in often[:num_words] if log_ratio(word) < -1],
    }
