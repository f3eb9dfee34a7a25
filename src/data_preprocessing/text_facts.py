"""What recurs in the texts of the exports: WhatsApp's own texts in a language that no table has.

A placeholder such as `<Media jijunaa>` is a whole body, an edited mark such as `<Pesan ini diedit>` stands at the end of
one. People do not write sentences in angle brackets, least of all the same one again and again.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from whatsapp_texts import EDITED_STEMS, LEFT_TO_RIGHT_MARK

MIN_PLACEHOLDER_REPEATS = 3  # fewer may be a joke of two people
MIN_MARK_REPEATS = 2
MAX_BRACKET_CHARS = 80

# A word and another one; or scripts that put no space between words: Thai to Myanmar, Khmer, Chinese, Japanese.
SENTENCE_RE = re.compile(r"[^\W\d_]\S*\s+\S*[^\W\d_]|[\u0e00-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff]{3}")
NUM_LETTERS = 3  # fewer: <3, <b>


@dataclass(frozen=True)
class TextFacts:
    """What the first reading found out about the texts."""

    placeholders: Mapping[str, int] = field(default_factory=dict)  # whole bodies that WhatsApp wrote, and how often
    edited_marks: frozenset[str] = frozenset()  # in lower case
    assistants: frozenset[str] = frozenset()  # senders that are no people


NO_FACTS = TextFacts()


@dataclass
class TextCounts:
    """Counts what may be WhatsApp's own."""

    placeholder_senders: dict[str, Counter[str]] = field(default_factory=dict)  # body: who sent it
    marks: Counter[str] = field(default_factory=Counter)  # a `<...>` at the end, in lower case

    def add(self, other: TextCounts) -> None:
        """Add the counts of another export."""
        for body, senders in other.placeholder_senders.items():
            self.placeholder_senders.setdefault(body, Counter()).update(senders)
        self.marks.update(other.marks)

    def find_placeholders(self) -> dict[str, int]:
        """Return how often each unknown `<...>` was sent, of those that no person wrote."""
        return {
            body: senders.total()
            for body, senders in self.placeholder_senders.items()
            if senders.total() >= MIN_PLACEHOLDER_REPEATS and (len(senders) > 1 or SENTENCE_RE.search(body))
        }

    def find_edited_marks(self) -> frozenset[str]:
        """Return the marks at the end of several texts."""
        return frozenset(
            mark for mark, number in self.marks.items() if number >= MIN_MARK_REPEATS and SENTENCE_RE.search(mark)
        )


def is_bracketed(body: str) -> bool:
    """Tell whether a whole text has the form `<...>` of a placeholder.

    >>> is_bracketed("<Media mellőzve>"), is_bracketed("I <3 you"), is_bracketed("<3>")
    (True, False, False)
    """
    if not (5 <= len(body) <= MAX_BRACKET_CHARS and body[0] == "<" and body[-1] == ">"):
        return False
    inside = body[1:-1]
    return not any(character in inside for character in "<>\n") and sum(map(str.isalpha, inside)) >= NUM_LETTERS


def mark_at_end(body: str) -> str:
    """Return the `<...>` at the end of a text, "" when there is none.

    >>> mark_at_end("bawa roti <Pesan ini diedit>"), mark_at_end("aku <3 kamu")
    ('<Pesan ini diedit>', '')
    """
    start = body.rfind("<")
    mark = body[start:]
    return mark if start > 0 and is_bracketed(mark) and mark[1].isalpha() and ":" not in mark else ""


def is_edited_mark(mark: str) -> bool:
    """Tell whether a mark of several words says that the message was edited.

    >>> is_edited_mark("<Diese Nachricht wurde bearbeitet.>"), is_edited_mark("<edited>")
    (True, False)
    """
    return SENTENCE_RE.search(mark) is not None and any(stem in mark.casefold() for stem in EDITED_STEMS)


def has_marked_end(text: str) -> bool:
    """Tell whether U+200E stands before the last `<`: an iPhone wrote what follows."""
    return text[: text.rfind("<")].endswith(LEFT_TO_RIGHT_MARK)
