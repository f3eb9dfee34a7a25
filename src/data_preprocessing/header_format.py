"""The first headers of an export -> its format: a fast pattern for its headers, and the meaning of their dates and times.

Which number of a date is the day is left to `date_order`, senders and texts to `whatsapp_export`.
"""

from __future__ import annotations

import datetime
import itertools
import re
from collections import Counter
from collections.abc import Collection, Iterable
from typing import NamedTuple

from date_order import DateOrder, date_numbers, find_order
from export_file import EXPORT_AGAIN, ExportError
from message_header import (
    AM_WORDS,
    NUMBER_RE,
    PM_WORDS,
    Header,
    HeaderShape,
    plain_word,
    read_header,
    word_after_seconds,
    word_beside_clock,
)

NUM_VOTING_HEADERS = 300  # decide the format

# So many steps back in time exclude one meaning of two unknown words beside the clock, when the other has hardly any.
MIN_STEPS_BACK = 3

IS_PM = dict.fromkeys(AM_WORDS, False) | dict.fromkeys(PM_WORDS, True)


class HeaderFormat(NamedTuple):
    """The format of one export: a fast pattern for its headers, and the meaning of their dates and times."""

    shape: HeaderShape
    header_re: re.Pattern[str]  # groups date, time and rest
    is_pm: dict[str, bool] | None  # by the word beside a 12-hour clock; None: a 24-hour clock
    tail_chars: int  # length of `:42 PM` in a time; read separately, so that times of one minute share a cache entry
    short_numbers: frozenset[str]  # what is written without a zero: minutes and seconds in 9:5:7
    order: DateOrder

    def to_date(self, text: str) -> datetime.date | None:
        """Return the day that `text` names, None when no such day exists."""
        numbers = date_numbers(text)
        return None if numbers is None else self.order.to_date(numbers)

    def to_time(self, text: str) -> datetime.time | None:
        """Return the time of day that `text` names, None when no such time exists."""
        hour, minute, *seconds = map(int, NUMBER_RE.findall(text))
        second = seconds[0] if seconds else 0
        if self.is_pm is not None:
            word = word_beside_clock(text)
            if hour > 12 or (word and word not in self.is_pm):  # "": the word is in the tail
                return None
            hour = hour % 12 + (12 if self.is_pm.get(word) else 0)
        # Some phones write midnight as 24:00, with the date of the new day.
        return datetime.time(hour % 24, minute, second) if hour <= 24 and minute < 60 and second < 60 else None

    def to_tail(self, text: str) -> datetime.timedelta | None:
        """Return what the last `tail_chars` characters of a time add to it, None when no such second exists.

        `:42` adds 42 seconds, `:42 PM` 12 hours more.
        """
        second, word = int(NUMBER_RE.findall(text)[0]), word_after_seconds(text)
        if self.is_pm is None or self.shape.word_place != "after":
            return datetime.timedelta(seconds=second) if second < 60 else None
        if second > 59 or word not in self.is_pm:
            return None
        return datetime.timedelta(hours=12 if self.is_pm[word] else 0, seconds=second)

    @property
    def description(self) -> str:
        """Describe the format in a few words."""
        shape = self.shape
        phone = "iOS" if shape.has_bracket else "iOS before 2017" if shape.end == ":" else "Android"
        date = "names of months" if shape.date_kind == "name" else f"dates with `{shape.date_kind}`"
        clock = f"{24 if self.is_pm is None else 12}-hour clock with{'' if shape.has_seconds else 'out'} seconds"
        return f"{phone}: {date}, {clock}{', time before date' if shape.is_time_first else ''}"


class Section(NamedTuple):
    """Lines of one format, from `first_line` (counted from 1) to the next section."""

    first_line: int
    format: HeaderFormat


def find_format(lines: Iterable[str], day_first: bool | None = None) -> HeaderFormat | None:
    """Return the header format of an export, None when headers of several occur; its lines are read only as far as needed.

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
    if len({header.shape for header in headers.values()}) > 1:
        return None
    return make_format(headers, day_first, later_lines=lines)


def make_format(
    headers: dict[int, Header],
    day_first: bool | None,
    later_lines: Iterable[str] = (),
    later_dates: Iterable[str] = (),
) -> HeaderFormat:
    """Return the format of `headers`, by line number and all of one shape; raise ExportError as `find_format` does.

    `later_lines` and the texts of `later_dates` are read only as far as the order of their dates needs.
    """
    for number, header in headers.items():
        if not header.has_year:
            raise ExportError(f"line {number}: dates without a year cannot be told apart; {EXPORT_AGAIN}")
    short = _short_numbers_of(headers.values())
    voters = [header for header in headers.values() if header.short_numbers <= short] or list(headers.values())
    header_re = header_re_of(voters)
    is_pm = _find_half_days(voters[0].shape, headers)
    dates_of_lines = (match["date"] for match in map(header_re.match, later_lines) if match)
    order = find_order(voters, itertools.chain(dates_of_lines, later_dates), day_first)
    return HeaderFormat(voters[0].shape, header_re, is_pm, _tail_chars(voters), short, order)


def _short_numbers_of(headers: Collection[Header]) -> frozenset[str]:
    """Return which of minute and second the phone writes without a zero; a single such line may have been pasted."""
    short = frozenset[str]().union(*(header.short_numbers for header in headers))
    return short.difference(*(header.padded_numbers for header in headers))


def _find_half_days(shape: HeaderShape, headers: dict[int, Header]) -> dict[str, bool] | None:
    """Return which word beside the clock means the evening, None for a clock of 24 hours.

    A language that no table has uses two words, and messages stand in the order of time: of the two meanings the one with
    fewer steps back within a day is right. Raises ExportError when morning and evening cannot be told apart.
    """
    if not shape.word_place:
        return None
    words = {number: plain_word(header.word) for number, header in headers.items()}
    unknown = dict.fromkeys(word for word in words.values() if word not in IS_PM)
    hours = [int(header.match["hour"]) for header in headers.values()]
    if not unknown:
        return None if _is_clock_of_24_hours(hours, words.values()) else IS_PM
    if len(unknown) == len(set(words.values())) and max(hours) > 12:
        return None  # a word such as "o'clock"
    both = list(dict.fromkeys(words.values()))
    if max(hours) <= 12 and len(both) == 2:
        voters = list(headers.values())
        for is_pm in ({both[0]: False, both[1]: True}, {both[0]: True, both[1]: False}):
            opposite = {word: not is_evening for word, is_evening in is_pm.items()}
            num_steps, num_opposite_steps = _num_steps_back(voters, is_pm), _num_steps_back(voters, opposite)
            if num_opposite_steps >= MIN_STEPS_BACK and num_steps * MIN_STEPS_BACK <= num_opposite_steps:
                return IS_PM | is_pm  # a word may mean the other half in another language
    first_line = next(number for number, word in words.items() if word in unknown)
    raise ExportError(
        f"line {first_line}: the word beside its 12-hour clock is not known, so morning and evening cannot be told "
        "apart; export the chat again with the phone set to a 24-hour clock"
    )


def _is_clock_of_24_hours(hours: Iterable[int], words: Iterable[str]) -> bool:
    """Tell whether it counts to 23 although a word stands beside it: 13:24 PM. One such line may have been pasted."""
    in_evening = [hour for hour, word in zip(hours, words, strict=True) if IS_PM[word]]
    num_late = sum(hour > 12 for hour in in_evening)
    return num_late > sum(0 < hour < 12 for hour in in_evening)


def _num_steps_back(headers: list[Header], is_pm: dict[str, bool]) -> int:
    """Return how often a message is earlier than the one before it, of the same day."""
    moments = [
        (
            header.date_text,
            is_pm[plain_word(header.word)],
            int(header.match["hour"]) % 12,
            int(header.match["minute"]),
        )
        for header in headers
    ]
    return sum(one[0] == other[0] and one[1:] > other[1:] for one, other in itertools.pairwise(moments))


def header_re_of(headers: list[Header]) -> re.Pattern[str]:
    """Return a pattern of the commonest spelling of the headers in this file.

    It takes half the time of a pattern for all formats. Headers in another spelling are left to `read_header`.
    """
    words = {header.word for header in headers} - {""}
    short = _short_numbers_of(headers)
    patterns = Counter(_pattern_of(header, words, short) for header in headers)
    return re.compile(patterns.most_common(1)[0][0] + "(?P<rest>.*)")


def _pattern_of(header: Header, words: set[str], short: frozenset[str]) -> str:
    text = header.text
    parts = {"date": header.date_span, "time": header.time_span}
    pattern, position = "\u200e?", header.match.end("lead")
    for name in sorted(parts, key=lambda name: parts[name]):
        start, end = parts[name]
        opened = _open(text[start:end], header, words, short if name == "time" else None)
        pattern += re.escape(text[position:start]) + f"(?P<{name}>{opened})"
        position = end
    return pattern + re.escape(text[position:])


def _open(text: str, header: Header, words: set[str], short: frozenset[str] | None) -> str:
    """Return a pattern for `text` in which numbers and words may vary: a date, or a time with `short` numbers.

    `9/30/22` becomes `[0-9]{1,2}/[0-9]{1,2}/[0-9]{1,2}`.
    """
    digit = "[0-9]" if text.isascii() else r"\d"
    pieces = []
    num_numbers = 0
    for piece in re.findall(r"\d+|\D+", text):
        if piece.isdigit():
            num_numbers += 1
            name = {2: "minute", 3: "second_of_minute"}.get(num_numbers)
            is_fixed = short is not None and name and name not in short  # else 19:05:1 were 19:0 and a tail of 5:1
            pieces.append(digit + ("{4}" if len(piece) == 4 else "{2}" if is_fixed else "{1,2}"))
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
