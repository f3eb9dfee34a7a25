"""With whom the imitated person writes in this chat, and since when: the header line of the conversation.

The names are those that stage 2 found in its data. What a header looks like is left to `common.conversation_header`,
where it stands to `common.chat_format`.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Any

from saved_model_checks import SavedModel
from turns import Messages

from common.conversation_header import (
    NO_CONTEXT,
    Partner,
    context_from_settings,
    one_line,
    partners_from_settings,
    render_header,
)
from common.script import printable

MAX_SHOWN_NAMES = 20
NUM_NEAREST = 3
NO_HEADER = "this model was trained without a header (--context none), so it is not told with whom it writes"


class UnknownName(ValueError):
    """A name that the training data do not have; the text names the nearest ones."""


class WhoAndWhen:
    """The partner of a conversation and the time at which it began.

    A model trained without a header has no partner, unless the user writes as a member of a group.
    """

    def __init__(self, settings: Mapping[str, Any], clock: Callable[[], datetime] = datetime.now) -> None:
        """Begin with the partner who wrote most; `settings` are those of the trained folder."""
        self.context = context_from_settings(settings)
        self.partners = partners_from_settings(settings)
        self.partner = self.partners[0] if self.has_header and self.partners else None
        self.member = _first_member(self.partner)
        self.began_at: datetime | None = None
        self._clock = clock

    @property
    def has_header(self) -> bool:
        """Whether the model was trained with a header."""
        return self.context != NO_CONTEXT

    @property
    def header(self) -> str:
        """The header line of this conversation; "" without one."""
        return render_header(self.context, self.partner.name if self.partner else "", self.began_at)

    def begin(self) -> None:
        """Take the time of a conversation that begins now."""
        self.began_at = self._clock()

    def choose(self, name: str) -> None:
        """Write with `name` from now on; raise UnknownName."""
        found = _find(name, [partner.name for partner in self.partners])
        self.partner = next(partner for partner in self.partners if partner.name == found)
        self.member = _first_member(self.partner)

    def choose_member(self, name: str) -> None:
        """Write as the member `name` of the group, which is chosen too if it is not yet; raise UnknownName."""
        groups = [partner for partner in self.partners if partner.members]
        if self.partner in groups:
            groups = [self.partner] if self.partner else []
        if not groups:
            raise UnknownName("the training data have no group, so there is no member to write as")
        found = _find(name, dict.fromkeys(member for group in groups for member in group.members))
        self.partner = next(group for group in groups if found in group.members)
        self.member = found

    def as_in_training(self, text: str, messages: Messages) -> str:
        r"""Return the user's `text` as stage 1 writes it: in a group the member's name stands before the words.

        Not again where the same member goes on, as in a burst of messages.
        """
        if self.member is None or self._last_writer(messages) == self.member:
            return text
        return f"{self.member}: {text}"

    def describe(self) -> str:
        """Return the known names for /with, one a line, with the one that is chosen marked."""
        if not self.partners:
            return "the training data name nobody"
        lines = []
        for partner in self.partners[:MAX_SHOWN_NAMES]:
            mark = "* " if partner == self.partner else "  "
            members = f" (a group: {', '.join(map(printable, partner.members))})" if partner.members else ""
            lines.append(f"{mark}{printable(partner.name)}{members}")
        if len(self.partners) > MAX_SHOWN_NAMES:
            lines.append(f"  and {len(self.partners) - MAX_SHOWN_NAMES:,} more")
        return "\n".join(lines)

    def shown(self) -> str:
        """Return who writes with whom, for a note: "with Ruth", "with the family, as Adi"."""
        if self.partner is None:
            return ""
        return f"with {printable(self.partner.name)}" + (f", as {printable(self.member)}" if self.member else "")

    def to_training_keys(self) -> dict[str, str]:
        """Return what the training data would say of this conversation: with whom it is and since when."""
        return {
            **({"chat": self.partner.name} if self.partner else {}),
            **({"started_at": self.began_at.isoformat(timespec="seconds")} if self.began_at else {}),
        }

    def to_record(self) -> dict[str, Any]:
        """Return what the JSONL log keeps of it."""
        return {
            "with": self.partner.name if self.partner else None,
            **({"as": self.member} if self.member else {}),
            **({"began_at": self.began_at.isoformat(timespec="seconds")} if self.began_at else {}),
        }

    def restore(self, record: Mapping[str, Any]) -> None:
        """Take partner, member and time from a record of the log; what this model does not know is left out."""
        names = [partner.name for partner in self.partners]
        if record.get("with") in names and (self.has_header or "as" in record):
            self.choose(record["with"])
        if self.partner is not None and record.get("as") in self.partner.members:
            self.member = record["as"]
        try:
            self.began_at = datetime.fromisoformat(str(record.get("began_at")))
        except ValueError:
            self.began_at = None

    def _last_writer(self, messages: Messages) -> str | None:
        """Return the member who wrote the last line of the user's unfinished turn."""
        if not messages or messages[-1]["role"] != "user" or self.partner is None:
            return None
        for line in reversed(messages[-1]["content"].split("\n")):
            for member in self.partner.members:
                if line.startswith(f"{member}: "):
                    return member
        return None


def header_of_today(saved: SavedModel) -> str:
    """Return the header that the chat would begin with now, for programs that render none; "" without one."""
    who_and_when = WhoAndWhen(saved.settings)
    who_and_when.begin()
    return who_and_when.header


def _first_member(partner: Partner | None) -> str | None:
    return partner.members[0] if partner is not None and partner.members else None


def _find(name: str, known: Iterable[str]) -> str:
    """Return the known name that `name` is, in any letter case; raise UnknownName with the nearest ones.

    >>> _find("ruth", ["Ruth", "Koby"])
    'Ruth'
    >>> _find("Rut", ["Ruth", "Koby"])
    Traceback (most recent call last):
    who_and_when.UnknownName: nobody is called "Rut" in the training data; the nearest: Ruth
    """
    names = list(known)
    wanted = one_line(name)
    if wanted in names:
        return wanted
    by_folded = {known_name.casefold(): known_name for known_name in reversed(names)}
    if wanted.casefold() in by_folded:
        return by_folded[wanted.casefold()]
    near = difflib.get_close_matches(wanted.casefold(), by_folded, NUM_NEAREST)
    near += [folded for folded in by_folded if wanted and wanted.casefold() in folded and folded not in near]
    shown = [by_folded[folded] for folded in near[:NUM_NEAREST]] or names[:NUM_NEAREST]
    cure = f"; {'the nearest:' if near else 'they have'} {', '.join(map(printable, shown))}"
    raise UnknownName(
        f'nobody is called "{printable(wanted)}" in the training data' + (cure if shown else ", which name nobody")
    )
