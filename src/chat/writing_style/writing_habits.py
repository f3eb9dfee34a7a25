"""Counts from a writer's replies: habits, plain numbers, overused words, copies from training.

Each habit turns one reply into counts of categories. Comparing writers is left to `style_measuring`.
"""

from __future__ import annotations

import math
import re
import statistics
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import emoji
import regex

# Laughter in Hebrew and English chats: חחח, haha, lol, xd
LAUGHTER_RE = re.compile(r"ח{2,}|\b(?:a*(?:ha){2,}h?|lo+l|xd+)\b", re.IGNORECASE)
LAUGHING_EMOJI = ("😂", "🤣", "😹")
ELONGATED_RE = re.compile(r"([^\W\d_])\1\1")
WORD_RE = regex.compile(r"[\p{L}\p{M}\p{N}]+(?:['\"׳״’-][\p{L}\p{M}\p{N}]+)*")
PUNCTUATION = ".,!?…:;-()\"'"
SCRIPTS = {  # first and last letter; every other script is "other"
    "Hebrew": ("\u05d0", "\u05ea"),
    "Arabic": ("\u0620", "\u06d3"),
    "Cyrillic": ("\u0400", "\u04ff"),
}

LONG_RUN_WORDS = 6
NUM_KEY_WORDS, MIN_USES_OF_KEY_WORD = 10, 5
SHORT_REPLY_WORDS = 3  # exact copies up to this length are everyday phrases


class Situation(NamedTuple):
    """What a reply answers, and when and to whom it is written."""

    heard: str  # the turns before the reply, the last one last, without the names of a group's members
    is_first: bool  # of this writer in the conversation
    partner: str  # "" where the data does not say
    hour: int | None  # at which the conversation began


class Reply(NamedTuple):
    """One turn, its messages separated by line breaks, the number of its conversation, and what it answers if known."""

    conversation: int
    text: str
    situation: Situation | None = None


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
    """Count the turn under its number of messages, at most 4."""
    return Counter([str(min(len(split_messages(text)), 4))])


def count_endings(text: str) -> Counter[str]:
    """Count how each message ends: a mark, a repeated mark, dots, an emoji, or nothing.

    >>> count_endings("בטח!!\\nיאללה")
    Counter({'repeated': 1, 'nothing': 1})
    """
    return Counter(ending_of(message) for message in split_messages(text))


def ending_of(message: str) -> str:
    """Return how one message ends, as `count_endings` names it; trailing spaces are ignored."""
    message = message.rstrip()
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
    return Counter(laughter_of(message) for message in split_messages(text))


def laughter_of(message: str) -> str:
    """Return how one message laughs, as `count_laughter` names it: ח with its length up to 6, h, l, x, emoji, or none."""
    match = LAUGHTER_RE.search(message)
    if match is None:
        return "emoji" if any(face in message for face in LAUGHING_EMOJI) else "none"
    if match[0].startswith("ח"):
        return f"ח {min(len(match[0]), 6)}"
    return match[0][0].lower()


def count_elongation(text: str) -> Counter[str]:
    """Count messages with and without a letter three or more times in a row ("סבבהההה"), laughter aside."""
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
    """Return the words of `text` in lower case, Hebrew prefixes included."""
    return [match[0] for match in WORD_RE.finditer(text.lower())]


def count_words(text: str) -> Counter[str]:
    """Count words."""
    return Counter(list_words(text))


def count_trigrams(text: str) -> Counter[str]:
    """Count character trigrams of each message, with one space on both sides."""
    padded = [f" {message} " for message in split_messages(text)]
    return Counter(message[start : start + 3] for message in padded for start in range(len(message) - 2))


@dataclass(frozen=True)
class Habit:
    """One habit: its name in the JSON, its label on the page, and the function that counts it in a reply."""

    name: str
    label: str
    count: Callable[[str], Counter[str]]


HABITS = (
    Habit("length", "Length of a message", count_lengths),
    Habit("burst", "Messages per turn", count_bursts),
    Habit("endings", "Endings of messages", count_endings),
    Habit("punctuation", "Punctuation", count_punctuation),
    Habit("emoji_rate", "Emoji rate", count_emoji_use),
    Habit("emoji_set", "Choice of emoji", count_emoji),
    Habit("laughter", "Laughter", count_laughter),
    Habit("elongation", "Stretched letters (sooo)", count_elongation),
    Habit("scripts", "Mix of alphabets", count_scripts),
    Habit("words", "Choice of words", count_words),
    Habit("trigrams", "Character trigrams", count_trigrams),
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
    """Return whether a run of one to eight words comes four times in a row; laughter is one word, not a loop.

    >>> has_loop("יאללה טוב יאללה טוב יאללה טוב יאללה טוב"), has_loop("חחחחחחחח די")
    (True, False)
    """
    words = list_words(text)
    return any(
        words[start : start + size] * 3 == words[start + size : start + 4 * size]
        for size in range(1, 9)
        for start in range(len(words) - 4 * size + 1)
    )


def find_key_words(tuned: Sequence[str], owner: Sequence[str]) -> dict[str, list[str]]:
    """Return the words the tuned model uses more than twice ("overused") or less than half as often ("underused").

    At most ten of each, the largest ratio first, among the words used at least five times by tuned model and owner
    together. Private: these are words of the chat.
    """
    tuned_counts = sum((count_words(reply) for reply in tuned), Counter())
    owner_counts = sum((count_words(reply) for reply in owner), Counter())
    tuned_total, owner_total = max(tuned_counts.total(), 1), max(owner_counts.total(), 1)
    often = [
        word for word in tuned_counts | owner_counts if tuned_counts[word] + owner_counts[word] >= MIN_USES_OF_KEY_WORD
    ]

    def log_ratio(word: str) -> float:
        return math.log2((tuned_counts[word] + 0.5) / tuned_total * owner_total / (owner_counts[word] + 0.5))

    often.sort(key=lambda word: (log_ratio(word), word))
    return {
        "overused": [word for word in reversed(often[-NUM_KEY_WORDS:]) if log_ratio(word) > 1],
        "underused": [word for word in often[:NUM_KEY_WORDS] if log_ratio(word) < -1],
    }


class TrainingPhrases:
    """The training replies, indexed to find runs of words in them."""

    def __init__(self, replies: Iterable[str]) -> None:
        """Index `replies` by their words."""
        self._texts = [list_words(reply) for reply in replies]
        self._whole = {tuple(words) for words in self._texts}
        self._places: dict[str, list[tuple[int, int]]] = defaultdict(list)
        for text, words in enumerate(self._texts):
            for place, word in enumerate(words):
                self._places[word].append((text, place))

    def longest_run(self, reply: str) -> int:
        """Return the length in words of the longest run that also occurs in one training reply."""
        words = list_words(reply)
        longest = 0
        runs: dict[tuple[int, int], int] = {}  # for each position in training: the run that ends there
        for word in words:
            runs = {(text, place): runs.get((text, place - 1), 0) + 1 for text, place in self._places.get(word, ())}
            longest = max(longest, max(runs.values(), default=0))
        return longest

    def is_copy(self, reply: str) -> bool:
        """Return whether the whole reply is a training reply and longer than an everyday phrase."""
        words = tuple(list_words(reply))
        return len(words) > SHORT_REPLY_WORDS and words in self._whole


def describe_copies(phrases: TrainingPhrases, replies: Sequence[str]) -> dict[str, float]:
    """Return how much of `replies` is copied from training."""
    runs = [phrases.longest_run(reply) for reply in replies]
    long_enough = [reply for reply in replies if len(list_words(reply)) > SHORT_REPLY_WORDS]
    return {
        "mean_longest_run_words": sum(runs) / len(runs),
        "longest_run_words": max(runs),
        "share_long_runs": sum(run >= LONG_RUN_WORDS for run in runs) / len(runs),
        "num_over_three_words": len(long_enough),
        "num_exact_copies": sum(phrases.is_copy(reply) for reply in long_enough),
    }
