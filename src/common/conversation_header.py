"""Who and when: one line that stands before a conversation, "Ruth · Friday, morning".

Stage 2 renders it from what the JSONL says of each conversation, the report from the same JSONL, and the chat from the
names in `training_settings.json` and the clock. Where the line stands among the messages is left to `chat_format`.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from common.conversation_data import Conversation
from common.text_safety import remove_unsafe_characters

CONTEXTS = ("none", "who", "who,when")
NO_CONTEXT, WHO, WHO_AND_WHEN = CONTEXTS
# No date: each occurs once, so that it tells conversations apart and nothing else, and the chat's was never trained on.
# With one, a person's greetings fitted the hour in 55 % instead of 88 % of first replies (tests/benchmarks/RESULTS.md).
SEPARATOR = " · "
MAX_NAME_CHARS = 100  # WhatsApp takes 25 for a person and 100 for a group

# Not of the system's language: a line that was trained on must be the same everywhere.
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
# (the hour at which it begins, its name); what is before the first is night. People greet by these parts, in Hebrew by
# exactly these five: noon is a part of the day, not a moment.
PARTS_OF_DAY = ((5, "morning"), (11, "noon"), (15, "afternoon"), (18, "evening"), (22, "night"))


@dataclass(frozen=True)
class Partner:
    """One with whom the imitated person writes: another person, or a group with its members."""

    name: str
    members: tuple[str, ...] = ()  # of a group, who wrote in most conversations first; empty for one person


def part_of_day(hour: int) -> str:
    """Return the part of the day that `hour` (0 to 23) belongs to.

    >>> part_of_day(4), part_of_day(5), part_of_day(12)
    ('night', 'morning', 'noon')
    """
    return next((name for start, name in reversed(PARTS_OF_DAY) if hour >= start), PARTS_OF_DAY[-1][1])


def render_header(context: str, who: str, moment: datetime | None) -> str:
    r"""Return the header line of a conversation with `who` that began at `moment`; "" where it is not known with whom.

    >>> render_header("who,when", "Ruth", datetime(2024, 12, 13, 9, 30))
    'Ruth · Friday, morning'
    >>> render_header("who", "the\nfamily", None), render_header("none", "Ruth", None)
    ('the family', '')
    """
    name = one_line(who)
    if context == NO_CONTEXT or not name:
        return ""
    if context == WHO or moment is None:
        return name
    return f"{name}{SEPARATOR}{DAYS[moment.weekday()]}, {part_of_day(moment.hour)}"


def one_line(name: str) -> str:
    """Return `name` as it stands in a header: on one line, without characters that act on a terminal, not too long."""
    return " ".join(remove_unsafe_characters(name).split())[:MAX_NAME_CHARS].strip()


def read_moment(started_at: str) -> datetime | None:
    """Return the time of a conversation's `started_at`; None where it has no hour or is none.

    >>> read_moment("2024-12-13T09:30:00"), read_moment("2024-12-13"), read_moment("yesterday")
    (datetime.datetime(2024, 12, 13, 9, 30), None, None)
    """
    try:
        return datetime.fromisoformat(started_at) if len(started_at) > len("2024-12-13") else None
    except ValueError:
        return None


def find_partners(conversations: Iterable[Conversation]) -> list[Partner]:
    """Return everybody with whom the conversations are, the one who wrote most turns first."""
    conversations = list(conversations)
    names = _names_by_line(conversations)
    num_turns: Counter[str] = Counter()
    members: dict[str, Counter[str]] = defaultdict(Counter)
    for conversation in conversations:
        name = names[conversation.line_number]
        if name:
            num_turns[name] += len(conversation.messages) - conversation.num_replies
            members[name].update(set(conversation.partners) - {name})
    return [
        Partner(
            name, tuple(member for member, _ in sorted(members[name].items(), key=lambda item: (-item[1], item[0])))
        )
        for name, _ in sorted(num_turns.items(), key=lambda item: (-item[1], item[0]))
    ]


def headers_by_line(conversations: Iterable[Conversation], context: str) -> dict[int, str]:
    """Return the header of each conversation, by its line in the JSONL."""
    conversations = list(conversations)
    names = _names_by_line(conversations)
    return {
        conversation.line_number: render_header(
            context, names[conversation.line_number], read_moment(conversation.started_at)
        )
        for conversation in conversations
    }


def _names_by_line(conversations: Sequence[Conversation]) -> dict[int, str]:
    """Return with whom each conversation is: the other person, in a group its title; "" where the line does not say.

    A chat is a group when several others wrote in it, be it in different conversations.
    """
    others_of: dict[str, set[str]] = defaultdict(set)
    for conversation in conversations:
        others_of[conversation.chat].update(conversation.partners)
    names = {}
    for conversation in conversations:
        # Without a title, conversations are no chat.
        others = others_of[conversation.chat] if conversation.chat else set(conversation.partners)
        name = next(iter(others)) if len(others) == 1 else conversation.chat or ", ".join(conversation.partners)
        names[conversation.line_number] = one_line(name)
    return names


def usable_context(context: str, conversations: Iterable[Conversation]) -> str:
    """Return how much of `context` the conversations say: none without names, who alone without times."""
    conversations = list(conversations)
    if not any(_names_by_line(conversations).values()):
        return NO_CONTEXT
    if context == WHO_AND_WHEN and not any(read_moment(talk.started_at) for talk in conversations):
        return WHO
    return context


def partners_to_json(partners: Iterable[Partner]) -> list[dict[str, Any]]:
    """Return the partners as `training_settings.json` holds them."""
    return [
        {"name": partner.name, **({"members": list(partner.members)} if partner.members else {})}
        for partner in partners
    ]


def partners_from_settings(settings: Mapping[str, Any]) -> list[Partner]:
    """Return the partners of a trained folder; raise ValueError when they are not what stage 2 writes."""
    found = settings.get("partners", [])
    if not isinstance(found, list):
        raise ValueError("partners is no list")
    partners = []
    for entry in found:
        if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
            raise ValueError("a partner has no name")
        members = entry.get("members", [])
        if not isinstance(members, list) or not all(isinstance(member, str) for member in members):
            raise ValueError("the members of a group are no names")
        partners.append(Partner(one_line(entry["name"]), tuple(map(one_line, members))))
    return partners


def context_from_settings(settings: Mapping[str, Any]) -> str:
    """Return the context that a model was trained with; folders of earlier versions name none.

    Raises ValueError for a word that is none of CONTEXTS.
    """
    context = settings.get("context", NO_CONTEXT)
    if context not in CONTEXTS:
        raise ValueError(f"context is none of {', '.join(CONTEXTS)}")
    return str(context)
