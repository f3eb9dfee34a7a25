"""The line that begins a message -> when it was sent; the one header format of an export, found from its first lines.

A phone writes its export in the format of its own language, region and clock: hundreds of them. They share a grammar
(`DATE, TIME - `, `[DATE, TIME] `, `DATE, TIME: `, and the time may come first), which `read_header` knows; `find_format`
then settles on the one shape of this file. Which number is the day is left to `date_order`, the words to `header_words`,
senders and texts to `whatsapp_export`.
"""

from __future__ import annotations

import datetime
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from date_order import DateOrder, find_date_order
from export_error import EXPORT_AGAIN, ExportError
from header_words import AM_WORDS, CLOCK_WORDS, MONTHS, PM_WORDS, plain_word

NUM_VOTING_HEADERS = 2000  # headers that settle the shape of the file
MAX_HEADER_CHARS = 100  # the longest known (Korean with direction marks) has 40

# Years that no Gregorian phone wrote: 1401 is 2022 in the Persian calendar, 1444 in the Islamic one.
OTHER_CALENDAR_YEARS = range(1300, 1600)

# U+061C Arabic letter mark, U+200E/F direction marks, U+202A-E embeddings, U+2066-9 isolates, U+FEFF byte order mark.
MARKS = "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff"
# U+00A0 no-break, U+2000-A (U+2009 thin), U+202F narrow no-break, U+3000 ideographic.
SPACES = " \u00a0\u2000-\u200a\u202f\u3000"

# The parts of a header. Every repetition has a limit, so that no line can take more than a fixed time.
_GAP = f"[{MARKS}{SPACES}]{{0,4}}"
_DATES = (
    # 30/09/2022   30.9.22   2022. 9. 30.   30.09.2022 г.   30<U+200F>/9<U+200F>/2565 BE
    rf"""
    (?P<first>\d{{1,4}}) {_GAP} (?P<separator>[./\-\u2010\u2011]) {_GAP}
    (?P<second>\d{{1,2}}) {_GAP} (?P=separator) {_GAP}
    (?P<third>\d{{1,4}}) (?:\.(?!\d))? (?:{_GAP} (?:г\.? | BE | พ\.ศ\.))?
    """,
    # 30 Sep 2013   30. September 2013   30 de set. de 2013   30 Sep
    rf"""
    (?P<first>\d{{1,2}}) \.? {_GAP} (?:de{_GAP})? (?P<month>[^\W\d_]{{2,12}}) [.׳']?
    (?:{_GAP} (?:de{_GAP})? (?P<third>\d{{4}}))?
    """,
    # Sep 30, 2013   Sep 30
    rf"(?P<month>[^\W\d_]{{2,12}}) \.? {_GAP} (?P<second>\d{{1,2}}) (?:,? {_GAP} (?P<third>\d{{4}}))?",
    # 30/09 (older phones left the current year out)
    r"(?P<first>\d{1,2}) (?P<separator>[./\-]) (?P<second>\d{1,2}) \.?",
)
# 18:15   6:15:42   18.15   18 h 15 min 42 s
_CLOCK = rf"""
    (?P<hour>\d{{1,2}}) (?P<colon>[:.] | {_GAP}h{_GAP}) (?P<minute>\d{{2}})
    (?: (?:[:.] | {_GAP}min{_GAP}) (?P<second_of_minute>\d{{2}}) (?:{_GAP}s\b)? )? (?!\d)
"""
# A word before or after the clock: PM   p. m.   오후   klo   ч.
_BEFORE, _AFTER = r"(?P<before>[^\d\n\[\]:]{0,16}?)", r"(?P<after>[^\d\n\[\]:]{0,16}?)"
# ` - `   `] `   `] - `   `: `
_END = rf"{_GAP} (?P<end> \] (?:{_GAP}[-\u2013\u2014](?=[{SPACES}]))? | [-\u2013\u2014] | :) (?:[{SPACES}] | \Z)"
_START = rf"(?P<lead>[{MARKS}]{{0,4}}) (?P<bracket>\[)? [{MARKS}]{{0,4}}"

_HEADER_RES = tuple(
    re.compile(pattern, re.VERBOSE)
    for date in _DATES
    for pattern in (
        # [30/09/2022, 6:15:42 PM] Rut: hi
        f"{_START} (?P<date>{date}) {_BEFORE} (?P<clock>{_CLOCK}) {_AFTER} {_END}",
        # 18:15 30/09/2022 - Rut: hi
        f"{_START} (?P<before>) (?P<clock>{_CLOCK}) {_AFTER} (?P<date>{date}) {_END}",
    )
)
# What all of them begin with: cheap, and false for nearly every other line.
_is_possible = re.compile(rf"[{MARKS}]{{0,4}}\[?[{MARKS}]{{0,4}}(?:\d|[^\W\d_]{{2,12}}\.?{_GAP}\d)").match

# [30.9.2022 klo 18.15.42]   the clock inside the text of a time, with a word on either side
_TIME_RE = re.compile(rf"{_BEFORE} (?P<clock>{_CLOCK}) (?P<after>\D{{0,20}}) \Z", re.VERBOSE)


class HeaderShape(NamedTuple):
    """What all headers of one file have in common."""

    has_bracket: bool
    is_time_first: bool
    date_kind: str  # the separator of its numbers, or "name" of a month
    year_place: str  # "first", "last", "short" (two digits, its place unknown) or "none"
    has_comma: bool
    colon: str
    has_seconds: bool
    word_place: str  # "before" or "after" the clock, where a word stands that may tell morning from evening, or ""
    end: str


class Header(NamedTuple):
    """The header of one line."""

    shape: HeaderShape
    date_span: tuple[int, int]
    time_span: tuple[int, int]  # the clock and, where there is one, the word beside it
    length: int  # where the sender begins
    has_year: bool
    match: re.Match[str]

    @property
    def date_text(self) -> str:
        """Return the date as written."""
        return self.match.string[slice(*self.date_span)]

    @property
    def time_text(self) -> str:
        """Return the time as written, with the word beside it."""
        return self.match.string[slice(*self.time_span)]


def read_header(line: str) -> Header | None:
    """Return the message header at the start of `line`, of any format, or None."""
    if not _is_possible(line):
        return None
    start = line[:MAX_HEADER_CHARS]
    for number, pattern in enumerate(_HEADER_RES):
        match = pattern.match(start)
        if match and (header := _describe(match, is_time_first=number % 2 == 1)):
            return header
    return None


def _describe(match: re.Match[str], is_time_first: bool) -> Header | None:
    """Return the header that `match` found, None when its parts do not belong together."""
    groups = match.groupdict()
    first, third = groups.get("first") or "", groups.get("third") or ""
    if bool(groups["bracket"]) != groups["end"].startswith("]"):
        return None
    has_year = bool(third)
    if "month" in groups:
        date_kind, year_place = "name", "last"
        if plain_word(groups["month"]) not in MONTHS:
            return None
    else:
        date_kind = groups["separator"].replace("\u2010", "-").replace("\u2011", "-")
        year_place = "none" if not third else "first" if len(first) > 2 else "last" if len(third) > 2 else "short"
        if {len(first), len(third)} not in ({2}, {1, 2}, {1, 4}, {2, 4}, {1, 0}, {2, 0}):
            return None
    before, after = plain_word(groups["before"]), plain_word(groups["after"])
    word_place = "before" if before and before not in CLOCK_WORDS else ""
    if after and after not in CLOCK_WORDS:
        word_place = "after"
    shape = HeaderShape(
        has_bracket=bool(groups["bracket"]),
        is_time_first=is_time_first,
        date_kind=date_kind,
        year_place=year_place,
        has_comma=any(comma in groups["after" if is_time_first else "before"] for comma in ",\u060c"),
        colon=groups["colon"].strip(),
        has_seconds=groups["second_of_minute"] is not None,
        word_place=word_place,
        end="-" if groups["end"] in "-\u2013\u2014" else groups["end"][:1],
    )
    time_start, time_end = match.span("clock")
    if word_place == "before":
        time_start = match.start("before")
    elif word_place == "after":
        time_end = match.end("after")
    return Header(shape, match.span("date"), (time_start, time_end), match.end(), has_year, match)


@dataclass(frozen=True)
class HeaderFormat:
    """The format of one export: how to find its headers, quickly, and what their dates and times mean."""

    shape: HeaderShape
    header_re: re.Pattern[str]  # groups date, time and rest
    has_half_days: bool  # a 12-hour clock
    order: DateOrder

    def to_date(self, text: str) -> datetime.date | None:
        """Return the day that `text` names, None when there is none such."""
        numbers = date_numbers(text)
        return None if numbers is None else self.order.to_date(numbers)

    def to_time(self, text: str) -> datetime.time | None:
        """Return the time of day that `text` names, None when there is none such."""
        match = _TIME_RE.match(text)
        if match is None:
            return None
        hour, minute, second = int(match["hour"]), int(match["minute"]), int(match["second_of_minute"] or 0)
        if self.has_half_days:
            word = plain_word(match[self.shape.word_place])
            if hour > 12 or word not in AM_WORDS | PM_WORDS:
                return None
            hour = hour % 12 + (12 if word in PM_WORDS else 0)
        return datetime.time(hour, minute, second) if hour < 24 and minute < 60 and second < 60 else None

    @property
    def description(self) -> str:
        """Say the format in a few words."""
        shape = self.shape
        phone = "iOS" if shape.has_bracket else "iOS before 2017" if shape.end == ":" else "Android"
        date = "names of months" if shape.date_kind == "name" else f"dates with `{shape.date_kind}`"
        clock = f"{12 if self.has_half_days else 24}-hour clock with{'' if shape.has_seconds else 'out'} seconds"
        return f"{phone}: {date}, {clock}{', time before date' if shape.is_time_first else ''}"


def date_numbers(text: str) -> tuple[int, int, int] | None:
    """Return the three numbers of a date in the order they stand; a named month makes it day, month, year.

    >>> date_numbers("2022. 9. 30."), date_numbers("Sep 30, 2013")
    ((2022, 9, 30), (30, 9, 2013))
    """
    numbers = [int(number) for number in re.findall(r"\d+", text)]
    if len(numbers) == 3:
        return numbers[0], numbers[1], numbers[2]
    words = (plain_word(word) for word in re.findall(r"[^\W\d_]+", text))
    month = next((MONTHS[word] for word in words if word in MONTHS), None)
    return (numbers[0], month, numbers[1]) if len(numbers) == 2 and month else None


def find_format(lines: Iterable[str], day_first: bool | None = None) -> HeaderFormat:
    """Return the header format of an export from its lines, read only as far as needed.

    `day_first` settles the order of day and month where the year comes last. Raises ExportError when there is no header,
    when its dates have no year or are of another calendar, when its 12-hour clock cannot be understood, or when
    `day_first` contradicts the dates.
    """
    lines = iter(lines)
    headers = {}  # by line number
    for number, line in enumerate(lines, 1):
        if header := read_header(line):
            headers[number] = header
            if len(headers) == NUM_VOTING_HEADERS:
                break
    if not headers:
        raise ExportError(
            "no WhatsApp messages found: no line begins like `30/09/2022, 18:15 - ` (Android) or `[9/30/22, 6:15:42 PM] ` "
            f"(iPhone), nor in the form of any other language; {EXPORT_AGAIN}"
        )
    shape = _choose_shape([header.shape for header in headers.values()])
    headers = {number: header for number, header in headers.items() if header.shape == shape}
    for number, header in headers.items():
        if not header.has_year:
            raise ExportError(f"line {number}: dates without a year cannot be told apart; {EXPORT_AGAIN}")
    voters = list(headers.values())
    header_re = _header_re_of(voters)
    has_half_days = _has_half_days(shape, headers)
    order = _find_order(shape, voters, _later_dates(lines, header_re), day_first)
    return HeaderFormat(shape, header_re, has_half_days, order)


def _choose_shape(shapes: list[HeaderShape]) -> HeaderShape:
    """Return the shape of the file's own headers; others stand in messages that somebody pasted."""
    if shapes[0] == shapes[-1]:  # it encloses all others, however many were pasted
        return shapes[0]
    return Counter(shapes).most_common(1)[0][0]


def _has_half_days(shape: HeaderShape, headers: dict[int, Header]) -> bool:
    """Tell whether the word beside the clock says morning or evening; raise ExportError when nobody can know."""
    if not shape.word_place:
        return False
    words = {number: plain_word(header.match[shape.word_place]) for number, header in headers.items()}
    unknown_lines = [number for number, word in words.items() if word not in AM_WORDS | PM_WORDS]
    if not unknown_lines:
        return True
    if len(unknown_lines) == len(words) and any(int(header.match["hour"]) > 12 for header in headers.values()):
        return False  # a word such as "o'clock"
    raise ExportError(
        f"line {unknown_lines[0]}: the word beside its 12-hour clock is not known, so morning and evening cannot be told "
        "apart; export the chat again with the phone set to a 24-hour clock"
    )


def _header_re_of(headers: list[Header]) -> re.Pattern[str]:
    """Return a pattern of just the headers of this file as they are written most often.

    It takes 0.5 times as long as a pattern that knows all formats. Headers written otherwise, if any, are left to
    `read_header`.
    """
    words = {header.match[header.shape.word_place] for header in headers if header.shape.word_place}
    patterns = Counter(_pattern_of(header, words) for header in headers)
    return re.compile(patterns.most_common(1)[0][0] + "(?P<rest>.*)", re.DOTALL)


def _pattern_of(header: Header, words: set[str]) -> str:
    text = header.match.string
    parts = {"date": header.date_span, "time": header.time_span}
    pattern, position = "\u200e?", header.match.end("lead")
    for name in sorted(parts, key=lambda name: parts[name]):
        start, end = parts[name]
        pattern += re.escape(text[position:start]) + f"(?P<{name}>{_open(text[start:end], header, words)})"
        position = end
    return pattern + re.escape(text[position : header.length])


def _open(text: str, header: Header, words: set[str]) -> str:
    """Return `text`, a date or a time, as a pattern in which its numbers and words may vary.

    `9/30/22` becomes `[0-9]{1,2}/[0-9]{1,2}/[0-9]{1,2}`.
    """
    digit = "[0-9]" if text.isascii() else r"\d"
    pieces = []
    for piece in re.findall(r"\d+|\D+", text):
        if piece.isdigit():
            pieces.append(digit + ("{4}" if len(piece) == 4 else "{1,2}"))
        elif piece in words:
            pieces.append(f"(?:{'|'.join(map(re.escape, sorted(words)))})")
        elif header.shape.date_kind == "name" and any(character.isalpha() for character in piece):
            pieces.append(r"\D{1,20}?")
        else:
            pieces.append(re.escape(piece))
    return "".join(pieces)


def _later_dates(lines: Iterable[str], header_re: re.Pattern[str]) -> Iterator[str]:
    date_place = header_re.groupindex["date"]
    for match in map(header_re.match, lines):
        if match:
            yield match[date_place]


def _find_order(
    shape: HeaderShape, headers: list[Header], later_dates: Iterable[str], day_first: bool | None
) -> DateOrder:
    if shape.date_kind == "name":
        return DateOrder("day/month/year", is_proven=True)
    candidates = {
        "first": ("year/month/day", "year/day/month"),
        "last": ("day/month/year", "month/day/year"),
        "short": ("day/month/year", "month/day/year", "year/month/day"),
    }[shape.year_place]
    order, num_impossible = find_date_order(
        _distinct_dates([header.date_text for header in headers], later_dates),
        candidates,
        _likely_order(shape, headers),
    )
    if shape.year_place == "first" and order.name == "year/month/day":
        order = DateOrder(order.name, is_proven=True)  # no country writes year, day, month
    if day_first is not None and shape.year_place != "first":
        wanted = "day/month/year" if day_first else "month/day/year"
        if num_impossible[wanted] > num_impossible[order.name]:
            raise ExportError(f"its dates cannot be {wanted}; leave the order of day and month to be found")
        order = DateOrder(wanted, is_proven=True)
    if any(
        (numbers := date_numbers(header.date_text))
        and (day := order.to_date(numbers))
        and day.year in OTHER_CALENDAR_YEARS
        for header in headers[:1]
    ):
        raise ExportError(f"its dates are of another calendar; set the phone to the Gregorian one and {EXPORT_AGAIN}")
    return order


def _distinct_dates(*parts: Iterable[str]) -> Iterator[tuple[int, int, int]]:
    """Yield the numbers of each date, once for all messages in a row that have it."""
    previous = ""
    for texts in parts:
        for text in texts:
            if text != previous:
                previous = text
                if numbers := date_numbers(text):
                    yield numbers


def _likely_order(shape: HeaderShape, headers: list[Header]) -> str:
    """Return the order that such a header has in most countries, for a file whose dates do not tell."""
    if shape.year_place == "first" or (shape.word_place == "before" and shape.date_kind == "."):
        return "year/month/day"  # Korea: 22. 9. 30. 오후 6:15
    # The United States: 9/30/22, 6:15 PM. Their neighbours write the zero, p. m., or pm.
    is_padded = any(re.search(r"\b0\d/", header.date_text) for header in headers)
    has_capitals = any(header.match["after"].strip() in ("AM", "PM") for header in headers)
    return "month/day/year" if shape.date_kind == "/" and has_capitals and not is_padded else "day/month/year"
