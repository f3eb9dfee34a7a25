"""Which characters of the data the base's tokenizer cannot give back: some know few letters, or write all in small ones.

What such a base reads and learns is another text than the person's, and no loss curve shows it.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable
from typing import Any

from processes import warn

from common.conversation_data import Conversation
from common.script import ScriptError, counted, printable

MOST_LOST_SHARE = 0.2  # of the characters of the replies; a base that loses more cannot write them
NUM_SHOWN = 5
CONTEXT_CHARS = 2  # on both sides: some tokenizers drop a line break only at the beginning or the end


def warn_of_lost_characters(tokenizer: Any, conversations: Iterable[Conversation], name: str) -> None:
    """Warn of the characters in the replies that `tokenizer` cannot give back; raise ScriptError if they are many.

    `name` is the base's.
    """
    replies = [
        message["content"] for talk in conversations for message in talk.messages if message["role"] == "assistant"
    ]
    number_of = Counter(character for reply in replies for character in reply if is_seen(character))
    lost = find_lost_characters(tokenizer, replies)
    if not lost:
        return
    num_lost, num_all = sum(number_of[character] for character in lost), sum(number_of.values())
    most_common = sorted(lost, key=lambda character: -number_of[character])[:NUM_SHOWN]
    what = (
        f"its tokenizer loses or changes {counted(len(lost), 'character')} of the replies "
        f"({', '.join(map(shown_character, most_common))}{', ...' if len(lost) > NUM_SHOWN else ''}), in all {num_lost:,} of {num_all:,}"
    )
    if num_lost > MOST_LOST_SHARE * num_all:
        raise ScriptError(f"{name}: {what}; choose a base model that knows this writing")
    warn(f"{name}: {what}; the model will not write them")


def is_seen(character: str) -> bool:
    """Return whether a reader sees this character; of the blank ones, only a line break counts."""
    return character == "\n" or not character.isspace()


def find_lost_characters(tokenizer: Any, texts: Iterable[str]) -> list[str]:
    """Return the characters of `texts` that are not there any more once a place where they occur is encoded and decoded.

    Other spellings of the same character (NFKC: one code point or several, a wide letter) do not count.
    """
    places: dict[str, str] = {}
    for text in texts:
        for number, character in enumerate(text):
            if character not in places and is_seen(character):
                places[character] = text[max(0, number - CONTEXT_CHARS) : number + CONTEXT_CHARS + 1]
    ids = tokenizer(list(places.values()), add_special_tokens=False)["input_ids"] if places else []
    decoded = tokenizer.batch_decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    lost = []
    for (character, place), text in zip(places.items(), decoded, strict=True):
        before, after = (Counter(unicodedata.normalize("NFKC", each)) for each in (place, text))
        parts = unicodedata.normalize("NFKC", character)
        if any(after[part] < before[part] for part in parts if is_seen(part)):
            lost.append(character)
    return lost


def shown_character(character: str) -> str:
    """Return a character as messages show it: itself, or the name of one that cannot be seen.

    >>> shown_character("é"), shown_character("\\n"), shown_character("\\u05b8")
    ('é', 'line break', 'HEBREW POINT QAMATS')
    """
    if character == "\n":
        return "line break"
    is_alone = unicodedata.category(character)[0] in "LNPS"
    return printable(character) if is_alone else unicodedata.name(character, f"U+{ord(character):04X}")
