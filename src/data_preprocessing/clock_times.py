"""The hours of the day that a message names, with what tells morning from evening.

Which day an hour belongs to is left to `message_dates`, the words themselves to `date_phrases`.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from datetime import time
from typing import NamedTuple

from date_phrases import CLOCK_RE, HEBREW_MINUTES, PARTS, as_number

HEBREW_RE = re.compile("[א-ת]")  # Israeli clocks have 24 hours: 10:30 is in the morning


class Clock(NamedTuple):
    """An hour as it is written, which need not tell morning from evening."""

    start: int
    end: int
    hour: int
    minute: int
    part: str
    is_whole: bool  # written as on a clock of 24 hours: 20:30, 08:00
    has_preposition: bool


def find_clocks(plain: str, taken: Collection[tuple[int, int]]) -> list[Clock]:
    """Return the hours in a normalised text, outside the spans `taken` (the 3.5 of a date is no time of day)."""
    clocks = []
    for match in CLOCK_RE.finditer(plain):
        if any(start < match.end() and match.start() < end for start, end in taken):
            continue
        clock = _read_clock(match)
        if clock is not None:
            clocks.append(clock)
    return clocks


def _read_clock(match: re.Match[str]) -> Clock | None:
    part = part_of(match["part"] or "")
    has_preposition, is_whole, minute = True, False, 0
    if match["hour"]:
        hour, minute = int(match["hour"]), int(match["minute"] or 0)
        before = match["hebrew_before"] or ""
        has_preposition = bool(before)
        if match["minute"] is None:
            # "for 8" counts people as well; a bare number is an hour before a part of the day alone.
            is_hour = (
                part
                or match["clock_word"]
                or (before and not re.fullmatch(r"[ושכ]?(?:ל-?|מ-?)|about ?|from ?", before))
            )
            if not is_hour:
                return None
        elif match["colon"] == "." and not (before or part):
            return None
        is_padded = match["minute"] is not None and len(match["hour"]) == 2
        is_whole = hour >= 13 or (is_padded and (hour not in (10, 11) or HEBREW_RE.search(match.string) is not None))
    elif match["hour_with_half"]:
        hour, minute = int(match["hour_with_half"]), int(match["minute_with_half"] or 0)
        part = "morning" if match["half_of_day"].startswith("a") else "afternoon"
        if not 1 <= hour <= 12:
            return None
        hour, is_whole = hour % 12 + (12 if part == "afternoon" else 0), True
    elif match["to_hour"]:
        hour, minute = (as_number(match["to_hour"]) - 1) % 12 or 12, 60 - HEBREW_MINUTES[match["to_minutes"]]
    elif match["evening_hour"]:
        hour, is_whole = int(match["evening_hour"]) + 12, True
    elif match["bare_hour"]:
        hour, has_preposition = as_number(match["bare_hour"]), False
        minute = HEBREW_MINUTES.get(match["bare_minutes"] or "", 0)
    elif match["hebrew_hour"]:
        hour = as_number(match["hebrew_hour"])
        minute = HEBREW_MINUTES.get(match["hebrew_minutes"] or "", 0)
    elif match["english_past"]:
        hour = as_number(match["past_hour"])
        minute = {"half past": 30, "quarter past": 15, "quarter to": 45}[match["english_past"]]
        if match["english_past"] == "quarter to":
            hour = (hour - 1) % 12 or 12
    elif match["english_hour"]:
        hour, minute = as_number(match["english_hour"]), 30 if match["english_thirty"] else 0
    else:  # noon
        hour, is_whole = 12, True
    if hour > 23 or minute > 59:
        return None
    return Clock(match.start(), match.end(), hour, minute, part, is_whole, has_preposition)


def part_of(words: str) -> str:
    """Return the name of the part of the day that normalised words name, "" for other words.

    >>> part_of("בבוקר"), part_of("pm")
    ('morning', 'afternoon')
    """
    return next((part for start, part in PARTS.items() if words.startswith(start)), "") if words else ""


def hour_of(clock: Clock, part: str, now: time | None) -> time | None:
    """Return the time of day of a clock, None when it may be that of the morning or of the evening.

    `now`: the time of the message, of an hour on the same day.
    """
    hour, minute = clock.hour, clock.minute
    if clock.is_whole or hour == 0:
        return time(hour, minute)
    if part:
        if part == "morning":
            return time(hour % 12 if hour == 12 else hour, minute)
        if hour == 12:
            return time(12, minute) if part in ("noon", "afternoon") else None
        if part == "noon":
            return time(hour if hour >= 10 else hour + 12, minute)
        return time(hour + 12, minute)
    if now is not None and hour <= 12:
        both = [time(hour % 12, minute), time(hour % 12 + 12, minute)]
        ahead = [at for at in both if at > now]
        if len(ahead) == 1:
            return ahead[0]
    return None
