"""Promises, as the messages of one chat go by, each with a later message of the same person that looks like keeping it.

Which messages promise, and which say that it is done, is told by `promise_words`.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta

from message_filters import KeptMessage
from promise_words import ANY

KEEPING_PERIOD = timedelta(days=21)  # later, "sent" is said of something else
SHOWING_PERIOD = timedelta(days=3)  # for a picture, a call or "done", which do not say what they are about


@dataclass(slots=True)
class Promise:
    """A promise, and the message that looks like keeping it."""

    message: KeptMessage
    act: str  # a key of `promise_words.ACTS`
    kept_by: KeptMessage | None = None


class Promises:
    """Collects the promises of one chat."""

    def __init__(self) -> None:
        """Begin without a promise."""
        self.found: list[Promise] = []
        self._open: dict[str, dict[str, list[Promise]]] = {}  # by person and act, oldest first

    def open_acts(self, person: str) -> Collection[str]:
        """Return which acts `person` promised that no later message looks like doing."""
        return self._open.get(person, ())

    def forget_before(self, now: datetime) -> None:
        """Wait no longer for what was promised too long before `now`."""
        for person, by_act in list(self._open.items()):
            for act in [act for act, promises in by_act.items() if now - promises[-1].message.sent_at > KEEPING_PERIOD]:
                del by_act[act]
            if not by_act:
                del self._open[person]

    def add(self, person: str, message: KeptMessage, act: str) -> None:
        """Take a message in which `person` promises `act`."""
        promise = Promise(message, act)
        self.found.append(promise)
        self._open.setdefault(person, {}).setdefault(act, []).append(promise)

    def keep(self, person: str, message: KeptMessage, acts: set[str], is_said: bool) -> None:
        """Take a message that looks like keeping the promises of `acts`; `is_said`: by its words."""
        of_person = self._open[person]
        says_which = is_said and ANY not in acts
        period = KEEPING_PERIOD if says_which else SHOWING_PERIOD
        for act in [act for act in of_person if act in acts or ANY in acts]:
            promises = of_person[act]
            # From the latest back to the first that is too old: a chat of promises alone takes linear time.
            while promises and message.sent_at - promises[-1].message.sent_at <= period:
                promises.pop().kept_by = message
            if not promises:
                del of_person[act]
        if not of_person:
            del self._open[person]
