"""The digests of chats -> one dictionary, as `--json` prints it and as the pages show it: newest first, every claim with its quote."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Any

from digest_reading import ME, ChatDigest, Plan
from message_filters import KeptMessage
from open_questions import OpenQuestion
from participants import readable_name
from promises import Promise

WEEKDAYS = ("Mondays", "Tuesdays", "Wednesdays", "Thursdays", "Fridays", "Saturdays", "Sundays")


def make_report(
    digests: Sequence[ChatDigest], my_names: Iterable[str], since: datetime, end: datetime
) -> dict[str, Any]:
    """Return the report on the period from `since` to `end`, the time of the exports' last message."""
    firsts = [digest.figures.first for digest in digests if digest.figures.first is not None]
    return {
        "me": sorted({readable_name(name) for name in my_names}),
        "since": since.isoformat() if since != datetime.min else None,
        "first_message": min(firsts).isoformat(),
        "last_message": end.isoformat(),
        "unanswered": {
            "to_me": _newest_first(digests, lambda digest: map(_question, digest.questions_to_me)),
            "of_mine": _newest_first(digests, lambda digest: map(_question, digest.questions_of_mine)),
        },
        "promises": {
            "of_mine": _newest_first(digests, lambda digest: map(_promise, digest.promises_of_mine)),
            "of_others": _newest_first(digests, lambda digest: map(_promise, digest.promises_of_others)),
        },
        "plans": {
            "ahead": sorted(_plans(digests, lambda digest: digest.plans_ahead), key=_begins),
            "past": sorted(_plans(digests, lambda digest: digest.plans_past), key=_begins, reverse=True),
            "not_certain": _newest_first(digests, lambda digest: map(_plan, digest.plans_not_certain)),
        },
        "figures": [_figures(digest) for digest in digests if digest.figures.first is not None],
    }


def _plans(digests: Sequence[ChatDigest], plans: Callable[[ChatDigest], Iterable[Plan]]) -> list[dict[str, Any]]:
    return [_plan(plan) | {"chat": digest.title} for digest in digests for plan in plans(digest)]


def _begins(plan: dict[str, Any]) -> tuple[str, str]:
    return plan["date"], plan["time"] or ""


def _newest_first(
    digests: Sequence[ChatDigest], items: Callable[[ChatDigest], Iterable[dict[str, Any]]]
) -> list[dict[str, Any]]:
    listed = [item | {"chat": digest.title} for digest in digests for item in items(digest)]
    return sorted(listed, key=lambda item: item["sent_at"], reverse=True)


def quote(message: KeptMessage) -> dict[str, Any]:
    """Return a message as the report quotes it."""
    return {"sent_at": message.sent_at.isoformat(), "sender": readable_name(message.sender), "text": message.text}


def _question(question: OpenQuestion) -> dict[str, Any]:
    return quote(question.message) | {"since": [quote(message) for message in question.since]}


def _promise(promise: Promise) -> dict[str, Any]:
    return quote(promise.message) | {"looks_kept_by": quote(promise.kept_by) if promise.kept_by else None}


def _plan(plan: Plan) -> dict[str, Any]:
    words, day, at = plan.phrase
    return quote(plan.message) | {
        "words": words,
        "date": day.isoformat() if day else None,
        "time": f"{at:%H:%M}" if at else None,
    }


def _figures(digest: ChatDigest) -> dict[str, Any]:
    figures = digest.figures
    by_hour, by_weekday = figures.by_hour(), figures.by_weekday()
    return {
        "chat": digest.title,
        "people": [
            {"name": "you" if person == ME else person, "num_messages": num_messages, "num_words": num_words}
            for person, (num_messages, num_words) in sorted(figures.people.items(), key=lambda item: -item[1][0])
        ],
        "busiest_hour": by_hour.index(max(by_hour)),
        "busiest_weekday": WEEKDAYS[by_weekday.index(max(by_weekday))],
        "messages_by_hour": by_hour,
        "messages_by_weekday": dict(zip(WEEKDAYS, by_weekday, strict=True)),
        "longest_silence": [moment.isoformat() for moment in figures.silence] if figures.silence else None,
        "without_words": dict(figures.kinds.most_common()),
        "links": [quote(message) | {"address": address} for message, address in reversed(figures.links)],
        "files": [quote(message) | {"name": name} for message, name in reversed(figures.files)],
        "most_answered": [quote(message) | {"num_answers": number} for message, number in figures.most_answered()],
    }
