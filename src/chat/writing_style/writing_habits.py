"""Habits of writing as counts: how messages end, which emoji, which words.

Each habit turns one reply into counts of categories. It leaves comparing the counts to `habit_distances`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import emoji
import regex

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


class Reply(NamedTuple):
    """One turn, its messages separated by line breaks, and the number of the conversation it belongs to."""

    conversation: int
    text: str


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
    """Count the turn under its number of messages, four standing for more."""
    return Counter([str(min(len(split_messages(text)), 4))])


def count_endings(text: str) -> Counter[str]:
    """Count how each message ends: a mark, a repeated mark, dots, an emoji, or nothing.

    >>> count_endings("בטח!!\\nיאללה")
    Counter({'repeated': 1, 'nothing': 1})
    """
    return Counter(ending_of(message) for message in split_messages(text))


def ending_of(message: str) -> str:
    """Return how one message ends, as `count_endings` names it; spaces behind the end do not count."""
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
