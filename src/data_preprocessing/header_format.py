"""The first headers of an export -> its format: a fast pattern for its headers, and the meaning of their dates and times.

Which number of a date is the day is left to `date_order`, senders and texts to `whatsapp_export`.
"""

from __future__ import annotations

import datetime
import re
from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

from date_order import DateOrder, date_numbers, find_order
from export_file import EXPORT_AGAIN, ExportError
from message_header import (
    HALF_DAY_WORDS,
    NUMBER_RE,
    PM_WORDS,
    Header,
    HeaderShape,
    plain_word,
    read_header,
    word_after_seconds,
    word_beside_clock,
)

NUM_VOTING_HEADERS = 300  # decide the shape of the file


class HeaderFormat(NamedTuple):
    """The format of one export: a fast pattern for its headers, and the meaning of their dates and times."""

    shape: HeaderShape
    header_re: re.Pattern[str]  # groups date, time and rest
    has_half_days: bool  # a 12-hour clock
    tail_chars: int  # length of `:42 PM` in a time; read separately, so that times of one minute share a cache entry
    order: DateOrder

    def to_date(self, text: str) -> datetime.date | None:
        """Return the day that `text` names, None when no such day exists."""
        numbers = date_numbers(text)
        return None if numbers is None else self.order.to_date(numbers)

    def to_time(self, text: str) -> datetime.time | None:
        """Return the time of day that `text` names, None when no such time exists."""
        hour, minute, *seconds = map(int, NUMBER_RE.findall(text))
        second = seconds[0] if seconds else 0
        if self.has_half_days:
            word = word_beside_clock(text)
            if hour > 12 or word not in HALF_DAY_WORDS | {""}:  # "": the word is in the tail
                return None
            hour = hour % 12 + (12 if word in PM_WORDS else 0)
        return datetime.time(hour, minute, second) if hour < 24 and minute < 60 and second < 60 else None

    def to_tail(self, text: str) -> datetime.timedelta | None:
        """Return what the last `tail_chars` characters of a time add to it, None when no such second exists.

        `:42` adds 42 seconds, `:42 PM` 12 hours more.
        """
        second, word = int(NUMBER_RE.findall(text)[0]), word_after_seconds(text)
        if second > 59 or (self.shape.word_place == "after" and self.has_half_days and word not in HALF_DAY_WORDS):
            return None
        return datetime.timedelta(hours=12 if word in PM_WORDS else 0, seconds=second)

    @property
    def description(self) -> str:
        """Describe the format in a few words."""
        shape = self.shape
        phone = "iOS" if shape.has_bracket else "iOS before 2017" if shape.end == ":" else "Android"
        date = "names of months" if shape.date_kind == "name" else f"dates with `{shape.date_kind}`"
        clock = f"{12 if self.has_half_days else 24}-hour clock with{'' if shape.has_seconds else 'out'} seconds"
        return f"{phone}: {date}, {clock}{', time before date' if shape.is_time_first else ''}"


def find_format(lines: Iterable[str], day_first: bool | None = None) -> HeaderFormat:
    """Return the header format of an export from its lines, read only as far as needed.

    `day_first` decides the order of day and month where the year comes last. Raises ExportError when there is no header,
    when the dates have no year or are of another calendar, when the words of a 12-hour clock are unknown, or when
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
    later_dates = (match["date"] for match in map(header_re.match, lines) if match)
    order = find_order(voters, later_dates, day_first)
    return HeaderFormat(shape, header_re, has_half_days, _tail_chars(voters), order)


def _choose_shape(shapes: list[HeaderShape]) -> HeaderShape:
    """Return the shape of the file's own headers; those of other shapes were pasted into a message."""
    if shapes[0] == shapes[-1]:  # the others lie in between, however many were pasted
        return shapes[0]
    return Counter(shapes).most_common(1)[0][0]


def _has_half_days(shape: HeaderShape, headers: dict[int, Header]) -> bool:
    """Tell whether the word beside the clock says morning or evening; raise ExportError when that cannot be known."""
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
    """Return a pattern of the commonest spelling of the headers in this file.

    It takes half the time of a pattern for all formats. Headers in another spelling are left to `read_header`.
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
    """Return a pattern for `text`, a date or a time, in which numbers and words may vary.

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
    """Return how many characters of a time follow its minute; 0 when that varies or there are no seconds."""
    if not headers[0].shape.has_seconds:
        return 0
    lengths = {header.time_span[1] - header.match.end("minute") for header in headers}
    return lengths.pop() if len(lengths) == 1 else 0
