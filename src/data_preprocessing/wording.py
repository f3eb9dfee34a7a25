"""The words of a message in the one spelling that the rules of the digest read: small letters, one form of each mark.

What the words mean is left to `date_phrases`, `promise_words` and `question_words`.
"""

from __future__ import annotations

import re
from typing import NamedTuple

MAX_READ_CHARS = 2_000  # of a message; longer ones are pasted texts
# Other spellings of the same marks, one character each: a place in the normalised text is the same place in the text.
MARKS = str.maketrans({"׳": "'", "’": "'", "`": "'", "״": '"', "“": '"', "”": '"', "־": "-", "–": "-", "\xa0": " "})
OTHER_SPELLING_RE = re.compile("[A-Z׳’`״“”־–\\xa0]")
DIGIT_RE = re.compile("[0-9]")
WORD_RE = re.compile(r"[^\W_]+(?:['\"][^\W_]+)*")


class Wording(NamedTuple):
    """What the rules read of a message."""

    text: str  # as it was sent, at most MAX_READ_CHARS
    plain: str  # the same, normalised: every character in its place
    words: list[str]  # as they stand there; those with marks around them once more without
    has_digits: bool


def wording_of(text: str) -> Wording:
    """Return what the rules read of a message.

    >>> wording_of('See you במוצ״ש, 5pm').words
    ['see', 'you', 'במוצ"ש,', '5pm', 'במוצ"ש']
    """
    text = text[:MAX_READ_CHARS]
    plain = normalised(text)
    words = plain.split()
    if "".join(words).isalpha():  # most messages; what follows takes three times as long
        return Wording(text, plain, words, has_digits=False)
    with_marks = [word for word in words if not word.isalnum()]
    if with_marks:
        words += WORD_RE.findall(" ".join(with_marks))
    return Wording(text, plain, words, DIGIT_RE.search(plain) is not None)


def normalised(text: str) -> str:
    """Return `text` in lower case with one spelling of quotes and hyphens, every character in its place.

    >>> normalised("Moצ״ש")
    'moצ"ש'
    """
    if OTHER_SPELLING_RE.search(text) is None:
        return text
    lowered = text.lower()
    return (lowered if len(lowered) == len(text) else text).translate(MARKS)
