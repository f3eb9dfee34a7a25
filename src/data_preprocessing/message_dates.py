"""A message -> the days ahead that it names, resolved against the day on which it was sent.

Only what is certain becomes a date. `next weekend`, `tomorrow` said at two in the morning or `on Friday` said on a Friday stay
words, and `at 8` without morning or evening stays a day without an hour. Days that the message tells of as past are left out,
and so are those that recur. Read are Hebrew and English, and dates in digits of any language. `dateparser`, which reads more
languages, is not used: of the planted English messages it read 32 of 39 days and named 46 false ones, in 3.6 ms a message.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from datetime import date, datetime, time, timedelta
from typing import NamedTuple

from clock_times import Clock, find_clocks, hour_of, part_of
from date_phrases import (
    ARRANGED_RE,
    CLOCK_WORDS,
    DATE_WORDS,
    ENGLISH_UNITS,
    HEBREW_UNITS,
    INSIDE,
    KINDS_OF_WORD,
    MONTHS,
    NO_DAY_AFTER_RE,
    NO_DAY_BEFORE,
    OR_RE,
    PART_RE,
    PART_WORDS,
    RECURRING_BEFORE,
    SIGNS_IN_DIGITS,
    WEEKDAYS,
    as_number,
    day_matches,
    is_past,
)
from wording import WORD_RE, Wording

# Hours; said later, it is no more ahead.
PART_BEGINS = {"morning": 6, "noon": 11, "afternoon": 12, "evening": 17, "night": 20}
LAST_YEAR = 9_990  # of a phone whose clock is wrong; no date may lie after the year 9999
SMALL_HOURS = 4  # until then, people call the day that is about to begin both today and tomorrow
MAX_PAST_DAYS = 90  # a date without a year that lies so little back was rather meant as past than as next year's
MAX_YEARS_AHEAD = 2
ALWAYS = 24, 7  # 24/7
BETWEEN_CHARS = 25  # at most, between a day and its hour
BETWEEN_DAY_AND_DATE_RE = re.compile(r"[ ,(]{0,3}(?:ה-?|the )?")  # Friday, the 20.12
CLAUSE_END_RE = re.compile(r"\n|[.!?;]+(?=\s|$)|,(?!\d)|\s-\s")
SENTENCE_END_RE = re.compile(r"\n|[.!?;]+(?=\s|$)")


class DatedPhrase(NamedTuple):
    """Words that name a day; without `day` it is not certain which one, without `at` not at what hour."""

    words: str
    day: date | None
    at: time | None = None


class _Named(NamedTuple):
    day: date | None
    part: str = ""  # of the day, where the words name one
    at: time | None = None  # of "in two hours"
    needs_hour: bool = False  # no day ahead without an hour or a part that is: today


class _Day(NamedTuple):
    start: int
    end: int
    kind: str  # of KINDS
    day: date | None
    part: str
    at: time | None
    needs_hour: bool


def find_dates(wording: Wording, sent_at: datetime, is_day_first: bool = True) -> list[DatedPhrase]:
    """Return the days ahead that a message, sent at `sent_at`, names; `is_day_first`: 3/4 is 3 April.

    >>> from wording import wording_of
    >>> find_dates(wording_of("נפגשים מחר בשמונה בערב?"), datetime(2024, 12, 10, 9, 30))
    [DatedPhrase(words='מחר בשמונה בערב', day=datetime.date(2024, 12, 11), at=datetime.time(20, 0))]
    >>> find_dates(wording_of("שני אנשים, בשבוע הבא"), datetime(2024, 12, 10, 9, 30))
    [DatedPhrase(words='בשבוע הבא', day=None, at=None)]
    """
    text, plain, words, has_digits = wording
    if not has_digits and DATE_WORDS.isdisjoint(words):
        return []
    if sent_at.year > LAST_YEAR:
        return []
    dated = DATE_WORDS.intersection(words)
    has_clock = has_digits or not dated.isdisjoint(CLOCK_WORDS)
    has_part = not PART_WORDS.isdisjoint(words)
    kinds = {kind for word in dated if word in KINDS_OF_WORD for kind in KINDS_OF_WORD[word]}
    if not has_clock and not has_part:
        kinds.discard("today")  # names no day ahead without an hour
    if has_digits:
        kinds.update(kind for kind, sign_re in SIGNS_IN_DIGITS.items() if sign_re.search(plain))
    days = _find_days(plain, kinds, dated, sent_at, is_day_first) if kinds else []
    if not days and not has_clock:
        return []
    clocks = find_clocks(plain, [(day.start, day.end) for day in days]) if has_clock else []
    if not days:
        return _hours_of_today(text, plain, clocks, sent_at)
    found = []
    for number, day in enumerate(days):
        lowest = days[number - 1].end if number else 0
        highest = days[number + 1].start if number + 1 < len(days) else len(plain)
        clock = _clock_of(plain, day, clocks, lowest, highest, is_first=not number) if clocks else None
        phrase = _with_hour(text, plain, day, clock, has_part, sent_at)
        if phrase is not None and not (day.kind in MAY_BE_PAST and _is_past(plain, words, day)):
            found.append(phrase)
    if len(days) == 1:
        return found
    for number in range(len(days) - 1):
        day, other = days[number], days[number + 1]
        if day.day != other.day and OR_RE.fullmatch(plain, day.end, other.start):
            return [DatedPhrase(phrase.words, None) for phrase in found]
    return list(dict.fromkeys(found))


# ---- Days ------------------------------------------------------------------------------------------------------------


def _find_days(
    plain: str, kinds: Collection[str], words: Collection[str], sent_at: datetime, is_day_first: bool
) -> list[_Day]:
    matches = [
        (match.start(), -match.end(), kind, match) for kind in kinds for match in day_matches(plain, kind, words)
    ]
    if len(matches) > 1:
        matches.sort(key=lambda found: found[:2])
    days: list[_Day] = []
    end = 0
    for start, _, kind, match in matches:
        if start < end or (start and (plain[start - 1].isalnum() or plain[start - 1] in INSIDE)):
            continue
        end = match.end()
        before = _word_before(plain, start)
        if before in RECURRING_BEFORE or (
            before in NO_DAY_BEFORE.get(kind, ()) and not (kind == "hebrew_later" and match["how_later"] == "בעוד")
        ):
            continue
        if kind in NO_DAY_AFTER_RE and NO_DAY_AFTER_RE[kind].match(plain, end):
            continue
        resolved = KINDS[kind](match, sent_at, is_day_first)
        if resolved is not None:
            days.append(_Day(start, end, kind, *resolved))
    return _joined(plain, days) if len(days) > 1 else days


def _joined(plain: str, days: list[_Day]) -> list[_Day]:
    """Return the days with "Friday, 20.12" as one; without a day when the 20th is no Friday."""
    joined: list[_Day] = []
    for day in days:
        last = joined[-1] if joined else None
        pair = [one for one in (last, day) if one is not None and one.kind in DATE_KINDS]
        is_pair = last is not None and len(pair) == 1 and {last.kind, day.kind} & WEEKDAY_KINDS
        if last is not None and is_pair and BETWEEN_DAY_AND_DATE_RE.fullmatch(plain, last.end, day.start):
            dated, weekday = pair[0].day, (day if pair[0] is last else last).day
            agree = dated is None or weekday is None or weekday.weekday() == dated.weekday()
            joined[-1] = pair[0]._replace(start=last.start, end=day.end, day=dated if agree else None)
        else:
            joined.append(day)
    return joined


def _word_before(plain: str, start: int) -> str:
    """Return the word that stands directly before a place, "" when there is none."""
    if not start or not plain[start - 1].isspace():
        return ""
    words = plain[max(0, start - BETWEEN_CHARS) : start].rsplit(None, 1)
    return words[-1] if words else ""


def _is_past(plain: str, words: Collection[str], day: _Day) -> bool:
    """Tell whether the clause of a day tells of what was; what was arranged for that day lies ahead."""
    if not is_past(words) or plain[day.start : day.end].lstrip("וש").startswith(("ל", "for ")):
        return False
    start, end = _clause_around(plain, day.start, day.end, CLAUSE_END_RE)
    clause = plain[start:end]
    return is_past(WORD_RE.findall(clause)) and ARRANGED_RE.search(clause) is None


def _clause_around(plain: str, start: int, end: int, end_re: re.Pattern[str]) -> tuple[int, int]:
    first = 0
    for mark in end_re.finditer(plain):
        if mark.end() <= start:
            first = mark.end()
        elif mark.start() >= end:
            return first, mark.start()
    return first, len(plain)


Resolved = _Named | None  # None: names no day ahead


def _tomorrow(match: re.Match[str], sent_at: datetime, is_day_first: bool) -> Resolved:
    if sent_at.hour < SMALL_HOURS:
        return _Named(None)
    return _Named(sent_at.date() + timedelta(days=1))


def _after_tomorrow(match: re.Match[str], sent_at: datetime, is_day_first: bool) -> Resolved:
    if sent_at.hour < SMALL_HOURS:
        return _Named(None)
    return _Named(sent_at.date() + timedelta(days=2))


def _today(match: re.Match[str], sent_at: datetime, is_day_first: bool) -> Resolved:
    word = match[0].lstrip("ושכ")
    part = "evening" if word.endswith("ערב") or "eve" in word else "night" if "לילה" in word or "toni" in word else ""
    part = "afternoon" if "afternoon" in word else part
    if part == "night" and sent_at.hour < SMALL_HOURS:
        return None
    return _Named(sent_at.date(), part, needs_hour=True)


def _saturday_night(match: re.Match[str], sent_at: datetime, is_day_first: bool) -> Resolved:
    if sent_at.weekday() == 5:
        return _Named(sent_at.date(), "evening")
    return _Named(_coming(5, sent_at), "evening")


def _hebrew_weekday(match: re.Match[str], sent_at: datetime, is_day_first: bool) -> Resolved:
    name = next(
        match[group]
        for group in ("named_day", "prefixed_day", "sabbath", "ordinal_day", "bare_day")
        if match[group] is not None
    )
    which = match["which"] or ""
    if which.startswith(("האחרונ", "הקודמ", "שעבר", "שחלפ")):
        return None
    weekday = WEEKDAYS[name.rstrip("'")]
    if which.startswith("הבא") or match["week_before"] or match["week_after"]:
        return _Named(_in_next_week(weekday, sent_at))
    return _Named(_unless_today(weekday, sent_at))


def _english_weekday(match: re.Match[str], sent_at: datetime, is_day_first: bool) -> Resolved:
    which = match["which"] or match["which_short"] or ""
    if which in ("last", "past", "every", "each", "since", "from"):
        return None
    names = ("english_day", "short_day", "bare_short_day", "sure_short_day")
    weekday = WEEKDAYS[next(match[name] for name in names if match[name])]
    if which == "next" or match["week_before"] or match["week_after"]:
        is_sunday = sent_at.weekday() == 6  # in English the week begins on Sunday or on Monday
        return _Named(None if is_sunday else _in_next_week(weekday, sent_at))
    return _Named(_unless_today(weekday, sent_at))


def _coming(weekday: int, sent_at: datetime) -> date:
    """Return the first such day after that of the message."""
    return sent_at.date() + timedelta(days=(weekday - sent_at.weekday() - 1) % 7 + 1)


def _unless_today(weekday: int, sent_at: datetime) -> date | None:
    """Return the coming such day; "on Friday" said on a Friday is not certain."""
    return None if sent_at.weekday() == weekday else _coming(weekday, sent_at)


def _in_next_week(weekday: int, sent_at: datetime) -> date:
    """Return such a day of the next week; weeks begin on Sunday."""
    days_since_sunday = (sent_at.weekday() + 1) % 7
    return sent_at.date() + timedelta(days=7 - days_since_sunday + (weekday + 1) % 7)


def _hebrew_later(match: re.Match[str], sent_at: datetime, is_day_first: bool) -> Resolved:
    if match["unit_from"]:
        return _later(1, HEBREW_UNITS[match["unit_from"]], sent_at + timedelta(days=match["from"] == "מחר"))
    count = match["hebrew_count"] or ""
    if count in ("כמה", "מספר") or match["about"]:
        return _Named(None)
    unit = match["hebrew_unit"]
    if (count == "") != (unit in ("חצי שעה", "שעה", "שעתיים", "יום", "יומיים", "שבוע", "שבועיים", "חודש", "חודשיים")):
        return None
    return _later(as_number(count or "1"), HEBREW_UNITS[unit], sent_at)


def _english_later(match: re.Match[str], sent_at: datetime, is_day_first: bool) -> Resolved:
    if match["half_an_hour"]:
        return _later(1, HEBREW_UNITS["חצי שעה"], sent_at)
    if match["few"] or match["about"] or match["count"] == "couple":
        return _Named(None)
    if match["from"] == "tomorrow":
        sent_at += timedelta(days=1)
    number = as_number(match["count"] or match["count_from"])
    return _later(number, ENGLISH_UNITS[match["unit"] or match["unit_from"]], sent_at)


def _later(number: int, unit: tuple[int, int, float], sent_at: datetime) -> Resolved:
    days, months, hours = number * unit[0], number * unit[1], number * unit[2]
    if hours:
        later = sent_at + timedelta(hours=hours)
        return _Named(later.date(), at=later.time().replace(second=0))
    if months:
        year, month = divmod(sent_at.year * 12 + sent_at.month - 1 + months, 12)
        return _Named(_date_or_none(year, month + 1, sent_at.day))
    return _Named(sent_at.date() + timedelta(days=days))


def _vague(match: re.Match[str], sent_at: datetime, is_day_first: bool) -> Resolved:
    return _Named(None)


def _day_of_month(match: re.Match[str], sent_at: datetime, is_day_first: bool) -> Resolved:
    number = int(match["hebrew_nth"] or match["english_nth"] or match["sure_nth"])
    day = _date_or_none(sent_at.year, sent_at.month, number)
    if day is None or day < sent_at.date():
        year, month = divmod(sent_at.year * 12 + sent_at.month, 12)
        day = _date_or_none(year, month + 1, number)
    return _Named(day) if 1 <= number <= 31 else None


def _month_name(match: re.Match[str], sent_at: datetime, is_day_first: bool) -> Resolved:
    number = int(match["hebrew_day_number"] or match["day_before"] or match["day_after"])
    month = MONTHS[match["hebrew_month"] or match["month_after"] or match["month_before"]]
    year = match["hebrew_year"] or match["year_after"] or match["year_behind"]
    return _with_year(year, month, number, sent_at)


def _digits(match: re.Match[str], sent_at: datetime, is_day_first: bool) -> Resolved:
    first, second = int(match["first"]), int(match["second"])
    has_slash = match["separator"] == "/"
    if match["separator"] == "-" and match["year"] is None:
        return None  # 7-8 is a range
    if match["year"] is None and match["before_digits"] is None:
        # 24.12 is a date, 3.5 and 24/7 need not be; the week's day before them says so too.
        is_full = len(match["first"]) == 2 and len(match["second"]) == 2
        begins_message = has_slash and not match.start() and 12 < first <= 31 and (first, second) != ALWAYS
        is_date = is_full and (not has_slash or max(first, second) > 12)
        if not is_date and not begins_message and not _follows_weekday(match):
            return None
    orders = [(first, second), (second, first)] if is_day_first else [(second, first), (first, second)]
    for day, month in orders:
        if 1 <= month <= 12 and _date_or_none(2024, month, day) is not None:
            return _with_year(match["year"], month, day, sent_at)
    return None


def _follows_weekday(match: re.Match[str]) -> bool:
    names = "|".join(WEEKDAYS)
    before = match.string[max(0, match.start() - 12) : match.start()]
    return re.search(rf"(?<!\w)(?:{names})'?,?\s?(?:ה-?)?$", before) is not None


def _with_year(year: str | None, month: int, number: int, sent_at: datetime) -> Resolved:
    sent_on = sent_at.date()
    if year is not None:
        day = _date_or_none(int(year) % 100 + 2000, month, number)
        is_ahead = day is not None and sent_on <= day and day.year - sent_on.year <= MAX_YEARS_AHEAD
        return _Named(day) if is_ahead else None
    day = _date_or_none(sent_on.year, month, number)
    if day is not None and day < sent_on:
        if (sent_on - day).days <= MAX_PAST_DAYS:
            return None
        day = _date_or_none(sent_on.year + 1, month, number)
    return _Named(day) if day is not None else None


def _date_or_none(year: int, month: int, day: int) -> date | None:
    try:
        return date(year, month, day)
    except ValueError:
        return None


KINDS = {
    "after_tomorrow": _after_tomorrow,
    "tomorrow": _tomorrow,
    "today": _today,
    "this_evening": _today,
    "saturday_night": _saturday_night,
    "hebrew_weekday": _hebrew_weekday,
    "english_weekday": _english_weekday,
    "hebrew_later": _hebrew_later,
    "english_later": _english_later,
    "vague": _vague,
    "day_of_month": _day_of_month,
    "month_name": _month_name,
    "digits": _digits,
}
WEEKDAY_KINDS = {"hebrew_weekday", "english_weekday"}
# One of them may follow the name of a weekday.
DATE_KINDS = {"digits", "month_name", "day_of_month", "today", "tomorrow"}
MAY_BE_PAST = KINDS.keys() - {"after_tomorrow", "tomorrow"}


# ---- Hours -----------------------------------------------------------------------------------------------------------


def _clock_of(plain: str, day: _Day, clocks: list[Clock], lowest: int, highest: int, is_first: bool) -> Clock | None:
    """Return the hour that belongs to a day: the first one behind it, else the last one before the first day."""
    for clock in clocks:
        if day.end <= clock.start < highest and _is_near(plain, day.end, clock.start):
            return clock
    for clock in reversed(clocks):
        if is_first and lowest <= clock.start and clock.end <= day.start and _is_near(plain, clock.end, day.start):
            return clock
    return None


def _is_near(plain: str, end: int, start: int) -> bool:
    return start - end <= BETWEEN_CHARS and SENTENCE_END_RE.search(plain, end, start) is None


def _with_hour(
    text: str, plain: str, day: _Day, clock: Clock | None, has_part: bool, sent_at: datetime
) -> DatedPhrase | None:
    """Return the phrase of a day with its hour, None for a today that is not ahead."""
    start, end, part = day.start, day.end, day.part
    if clock is not None:
        start, end = min(start, clock.start), max(end, clock.end)
        part = clock.part or part
    if has_part and not part:
        named = PART_RE.search(plain, day.end, day.end + BETWEEN_CHARS)
        if named is not None and _is_near(plain, day.end, named.start()):
            part, end = part_of(named[0]), max(end, named.end())
    at = day.at
    is_certain = day.day is not None
    if clock is not None and is_certain and at is None:
        at = hour_of(clock, part, sent_at.time() if day.day == sent_at.date() else None)
        # One at night: of the day, or of the next?
        is_certain = not (part == "night" and (clock.hour < 6 or clock.hour == 12))
    if day.needs_hour and is_certain:
        if at is not None and at <= sent_at.time():
            return None
        if at is None and (not part or (clock is None and sent_at.hour >= PART_BEGINS[part])):
            return None
    words = " ".join(text[start:end].split()).strip(" ,")
    return DatedPhrase(words, day.day, at) if is_certain else DatedPhrase(words, None)


def _hours_of_today(text: str, plain: str, clocks: list[Clock], sent_at: datetime) -> list[DatedPhrase]:
    """Return hours without a day that can only be those of today: ahead, and of morning or evening for certain."""
    found = []
    for clock in clocks:
        start, end = _clause_around(plain, clock.start, clock.end, CLAUSE_END_RE)
        is_recurring = _word_before(plain, clock.start) in RECURRING_BEFORE
        if not clock.has_preposition or is_recurring or is_past(WORD_RE.findall(plain, start, end)):
            continue
        if clock.part == "night" or sent_at.hour < SMALL_HOURS or not (clock.is_whole or clock.part):
            continue
        at = hour_of(clock, clock.part, None)
        if at is not None and at > sent_at.time():
            found.append(DatedPhrase(" ".join(text[clock.start : clock.end].split()), sent_at.date(), at))
    return found
