"""The names that stand before the messages of a group's members: found in the data, taken off before anything is judged.

Stage 1 writes them, so that the model knows who speaks. They are no habit of a member: with them a classifier would
tell the members from the owner by the names alone. What is shown to the model keeps them.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence

from common.conversation_data import Conversation

MAX_NAME_CHARS = 60
PREFIX_RE = re.compile(rf"(?P<name>[^:\n]{{1,{MAX_NAME_CHARS}}}): ")


def find_members(conversations: Iterable[Conversation]) -> frozenset[str]:
    """Return the names that stand before messages: those of every chat in which each turn of the others has one.

    A chat with one other person has no names: there, all turns would have to begin with two or more different ones.
    """
    turns_of_chat: dict[str, list[str]] = defaultdict(list)
    for conversation in conversations:
        turns_of_chat[conversation.chat] += [
            message["content"] for message in conversation.messages if message["role"] == "user"
        ]
    members: set[str] = set()
    for turns in turns_of_chat.values():
        prefixes = [PREFIX_RE.match(turn) for turn in turns]
        names = {prefix["name"] for prefix in prefixes if prefix}
        if len(names) > 1 and all(prefixes):
            members |= names
    return frozenset(members)


def without_names(text: str, members: Iterable[str]) -> str:
    r"""Return `text` without the names of `members` at the beginning of its lines.

    >>> without_names("Adi: hi\nBoaz: Adi: hello\nnote: bye", {"Adi", "Boaz"})
    'hi\nAdi: hello\nnote: bye'
    """
    names = "|".join(re.escape(name) for name in sorted(members, key=len, reverse=True))
    return re.sub(rf"^(?:{names}):[ ]?", "", text, flags=re.MULTILINE) if names else text


def name_before(turn: str, members: Iterable[str]) -> str | None:
    """Return the name before the last message of `turn` that has one, or None.

    >>> name_before("Adi: hi\\nBoaz: hello\\nthere", {"Adi", "Boaz"})
    'Boaz'
    """
    prefixes = [PREFIX_RE.match(line) for line in turn.split("\n")]
    names: Sequence[str] = [prefix["name"] for prefix in prefixes if prefix and prefix["name"] in set(members)]
    return names[-1] if names else None
