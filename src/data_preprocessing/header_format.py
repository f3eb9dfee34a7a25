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
from typing import NamedTuple

from date_order import DateOrder, find_date_order
from export_file import EXPORT_AGAIN, ExportError
from header_words import CLOCK_WORDS, HALF_DAY_WORDS, MONTHS, PM_WORDS, plain_word

NUM_VOTING_HEADERS = 300  # headers that settle the shape of the file
MAX_HEADER_CHARS = 100  # the longest known (Korean with direction marks) has 40

# Years that no Gregorian phone wrote: 1401 is 2022 in the Persian calendar, 1444 in the Islamic one.
OTHER_CALENDAR_YEARS = range(1300, 1600)

# Characters of a header that look otherwise on other phones, and what `read_header` takes them for. One for one, so that
# places in the line stay the same; direction marks are spaces there.
_PLAIN = str.maketrans(
    {
        "\u061c": " ",  # Arabic letter mark
        **dict.fromkeys(
            "\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\ufeff", " "
        ),  # direction marks
        **dict.fromkeys("\u00a0\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u3000", " "),
        **dict.fromkeys("\u2010\u2011\u2013\u2014", "-"),  # hyphens, en dash, em dash
        "\u060c": ",",  # Arabic comma
    }
)

# The parts of a header. Every repetition has a limit, so that no line takes more than a fixed time.
_GAP = r"[ ]{0,4}"
_NAME = r"[^\W\d_]{2,12}"
_DATE = rf"""
    (?P<date>
      # 30/09/2022   30.9.22   2022. 9. 30.   30.09.2022 г.   30 /9 /2565 BE
      (?P<first>\d{{1,4}}) {_GAP} (?P<separator>[./-]) {_GAP} (?P<second>\d{{1,2}}) {_GAP} (?P=separator) {_GAP}
      (?P<third>\d{{1,4}}) (?:\.(?!\d))? (?:{_GAP} (?:г\.? | BE | พ\.ศ\.))?
      # 30 Sep 2013   30. September 2013   30 de set. de 2013   30 Sep (older phones left the current year out)
    | \d{{1,2}} \.? {_GAP} (?:de{_GAP})? (?P<month_after>{_NAME}) [.׳']? (?:{_GAP} (?:de{_GAP})? (?P<year_1>\d{{4}}))?
      # Sep 30, 2013   Sep 30
    | (?P<month_before>{_NAME}) \.? {_GAP} \d{{1,2}} (?:,? {_GAP} (?P<year_2>\d{{4}}))?
      # 30/09
    | \d{{1,2}} (?P<lone_separator>[./-]) \d{{1,2}} \.?
    )
"""
# 18:15   6:15:42   18.15   18 h 15 min 42 s
_CLOCK = rf"""
    (?P<clock>
      (?P<hour>\d{{1,2}}) (?P<colon>[:.] | {_GAP}h{_GAP}) (?P<minute>\d{{2}})
      (?: (?:[:.] | {_GAP}min{_GAP}) (?P<second_of_minute>\d{{2}}) (?:{_GAP}s\b)? )? (?!\d)
    )
"""
# A word before or after the clock: PM   p. m.   오후   klo   ч.
_BEFORE, _AFTER = r"(?P<before>[^\d\n\[\]:]{0,16}?)", r"(?P<after>[^\d\n\[\]:]{0,16}?)"
# ` - `   `] `   `] - `   `: `
_END = rf"{_GAP} (?P<end> \] (?:{_GAP}-(?=[ ]))? | - | :) (?:[ ] | \Z)"
_START = rf"(?P<lead>{_GAP}) (?P<bracket>\[)? {_GAP}"

# [30/09/2022, 6:15:42 PM] Rut: hi
_DATE_FIRST_RE = re.compile(f"{_START} {_DATE} {_BEFORE} {_CLOCK} {_AFTER} {_END}", re.VERBOSE)
# 18:15 30/09/2022 - Rut: hi
_TIME_FIRST_RE = re.compile(f"{_START} (?P<before>) {_CLOCK} {_AFTER} {_DATE} {_END}", re.VERBOSE)
_CLOCK_RE = re.compile(_CLOCK, re.VERBOSE)
# :42   min 42 s   at the start of what follows a minute
_SECOND_RE = re.compile(rf"\D{{0,8}} \d{{1,2}} (?:{_GAP}s\b)?", re.VERBOSE)
_NUMBER_RE = re.compile(r"\d+")
# What a header begins with, and hardly another line:  9   [9   <U+200E>[9   Sep 30
_is_possible = re.compile(rf"\W{{0,6}} (?: \d | {_NAME}\W{{1,4}}\d )", re.VERBOSE).match


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
    text: str  # up to where the sender begins
    date_span: tuple[int, int]
    time_span: tuple[int, int]  # the clock and, where there is one, the word beside it
    has_year: bool
    match: re.Match[str]  # in the plain form of `text`

    @property
    def date_text(self) -> str:
        """Return the date as written."""
        return self.text[slice(*self.date_span)]

    @property
    def time_text(self) -> str:
        """Return the time as written, with the word beside it."""
        return self.text[slice(*self.time_span)]

    @property
    def word(self) -> str:
        """Return the word beside the clock as written."""
        return self.text[slice(*self.match.span(self.shape.word_place))] if self.shape.word_place else ""


def read_header(line: str) -> Header | None:
    """Return the message header at the start of `line`, of any format, or None."""
    if not _is_possible(line):
        return None
    start = line[:MAX_HEADER_CHARS].translate(_PLAIN)
    for pattern in (_DATE_FIRST_RE, _TIME_FIRST_RE):
        match = pattern.match(start)
        if match and " " not in line[: match.end("lead")] and (header := _describe(line, match)):
            return header
    return None


def _describe(line: str, match: re.Match[str]) -> Header | None:
    """Return the header that `match` found in `line`, None when its parts do not belong together."""
    groups = match.groupdict()
    if bool(groups["bracket"]) != groups["end"].startswith("]"):
        return None
    is_time_first = match.re is _TIME_FIRST_RE
    if month := groups["month_after"] or groups["month_before"]:
        if plain_word(month) not in MONTHS:
            return None
        date_kind, year_place = "name", "last"
        has_year = bool(groups["year_1"] or groups["year_2"])
    elif groups["third"]:
        num_first, num_third = len(groups["first"]), len(groups["third"])
        if {num_first, num_third} not in ({2}, {1, 2}, {1, 4}, {2, 4}):
            return None
        date_kind, has_year = groups["separator"], True
        year_place = "first" if num_first == 4 else "last" if num_third == 4 else "short"
    else:
        date_kind, has_year, year_place = groups["lone_separator"], False, "none"
    before, after = plain_word(groups["before"]), plain_word(groups["after"])
    word_place = "before" if before and before not in CLOCK_WORDS else ""
    if after and after not in CLOCK_WORDS:
        word_place = "after"
    shape = HeaderShape(
        has_bracket=bool(groups["bracket"]),
        is_time_first=is_time_first,
        date_kind=date_kind,
        year_place=year_place,
        has_comma="," in groups["after" if is_time_first else "before"],
        colon=groups["colon"].strip(),
        has_seconds=groups["second_of_minute"] is not None,
        word_place=word_place,
        end=groups["end"][:1],
    )
    time_start, time_end = match.span("clock")
    if word_place == "before":
        time_start = match.start("before")
    elif word_place == "after":
        time_end = match.end("after")
    return Header(shape, line[: match.end()], match.span("date"), (time_start, time_end), has_year, match)


class HeaderFormat(NamedTuple):
    """The format of one export: how to find its headers, quickly, and what their dates and times mean."""

    shape: HeaderShape
    header_re: re.Pattern[str]  # groups date, time and rest
    has_half_days: bool  # a 12-hour clock
    tail_chars: int  # of a time, from the seconds on (`:42 PM`): read apart, as hardly two messages share a second
    order: DateOrder

    def to_date(self, text: str) -> datetime.date | None:
        """Return the day that `text` names, None when there is none such."""
        numbers = date_numbers(text)
        return None if numbers is None else self.order.to_date(numbers)

    def to_time(self, text: str) -> datetime.time | None:
        """Return the time of day that `text` names, None when there is none such."""
        hour, minute, *seconds = map(int, _NUMBER_RE.findall(text))
        second = seconds[0] if seconds else 0
        if self.has_half_days:
            word = plain_word(_CLOCK_RE.sub("", text.translate(_PLAIN), count=1))
            if hour > 12 or word not in HALF_DAY_WORDS | {""}:  # "": it stands in the tail
                return None
            hour = hour % 12 + (12 if word in PM_WORDS else 0)
        return datetime.time(hour, minute, second) if hour < 24 and minute < 60 and second < 60 else None

    def to_tail(self, text: str) -> datetime.timedelta | None:
        """Return what the last `tail_chars` of a time add to it, None when there is no such second.

        `:42` is 42 seconds, `:42 PM` half a day more.
        """
        second, word = int(_NUMBER_RE.findall(text)[0]), plain_word(_SECOND_RE.sub("", text.translate(_PLAIN), count=1))
        if second > 59 or (self.shape.word_place == "after" and self.has_half_days and word not in HALF_DAY_WORDS):
            return None
        return datetime.timedelta(hours=12 if word in PM_WORDS else 0, seconds=second)

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
    numbers = [int(number) for number in _NUMBER_RE.findall(text)]
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
    return HeaderFormat(shape, header_re, has_half_days, _tail_chars(voters), order)


def _choose_shape(shapes: list[HeaderShape]) -> HeaderShape:
    """Return the shape of the file's own headers; others stand in messages that somebody pasted."""
    if shapes[0] == shapes[-1]:  # it encloses all others, however many were pasted
        return shapes[0]
    return Counter(shapes).most_common(1)[0][0]


def _has_half_days(shape: HeaderShape, headers: dict[int, Header]) -> bool:
    """Tell whether the word beside the clock says morning or evening; raise ExportError when nobody can know."""
    if not shape.word_place:
        return False
    words = {number: plain_word(header.word) for number, header in headers.items()}
    unknown_lines = [number for number, word in words.items() if word not in HALF_DAY_WORDS]
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
    words = {header.word for header in headers} - {""}
    patterns = Counter(_pattern_of(header, words) for header in headers)
    return re.compile(patterns.most_common(1)[0][0] + "(?P<rest>.*)")


def _pattern_of(header: Header, words: set[str]) -> str:
    text = header.text
    parts = {"date": header.date_span, "time": header.time_span}
    pattern, position = "\u200e?", header.match.end("lead")
    for name in sorted(parts, key=lambda name: parts[name]):
        start, end = parts[name]
        pattern += re.escape(text[position:start]) + f"(?P<{name}>{_open(text[start:end], header, words)})"
        position = end
    return pattern + re.escape(text[position:])


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
            pieces.append(r"[^\d\n]{1,20}?")
        else:
            pieces.append(re.escape(piece))
    return "".join(pieces)


def _tail_chars(headers: list[Header]) -> int:
    """Return how many characters of a time follow its minute; 0 where that varies, or there are no seconds."""
    if not headers[0].shape.has_seconds:
        return 0
    lengths = {header.time_span[1] - header.match.end("minute") for header in headers}
    return lengths.pop() if len(lengths) == 1 else 0


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
