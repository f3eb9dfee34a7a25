"""A WhatsApp export -> its messages, streamed in file order: when each was sent, by whom, and its text.

    for message in parse_export("WhatsApp Chat with Rut.zip"):
        print(message.sent_at, message.sender, message.text)

It needs the standard library alone, and its memory does not grow with the file. Opening and decoding files is left to
`export_source`, header formats to `header_format`, recognising notices to `whatsapp_texts`, dropping placeholders to
`message_filters`, and merging several exports to `merged_exports`.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple, TypeVar, cast

from date_order import FIRST_YEAR
from export_file import EXPORT_AGAIN, ExportError
from export_source import MAX_TEXT_CHARS, ExportSource, find_exports
from header_format import find_format
from message_header import read_header
from whatsapp_texts import LEFT_TO_RIGHT_MARK, is_encryption_notice, is_notice, is_quoting_notice

__all__ = ["Export", "ExportError", "Message", "find_exports", "parse_export"]

# Characters, mostly invisible, that may stand around a name.
NAME_MARGIN = (
    " \u00a0\u2009\u202f"  # space, no-break, thin, narrow no-break
    "\u061c\u200e\u200f"  # Arabic letter mark, left-to-right mark, right-to-left mark
    "\u202a\u202b\u202c\u202d\u202e"  # embeddings and overrides, around phone numbers
    "\u2066\u2067\u2068\u2069\ufeff"  # isolates, around names; byte order mark
)

MAX_CACHED = 10_000  # distinct days, minutes or names; more than any chat has

MIN_TIMES_OF_A_DAY = 40  # different ones, all between 1:00 and 12:59, as on a 12-hour clock

Value = TypeVar("Value")


class Message(NamedTuple):
    """One message as exported. A named tuple, because frozen dataclasses would double the time of the parser."""

    sent_at: datetime.datetime  # of the phone's clock, without time zone
    sender: str | None  # None: a notice that WhatsApp wrote itself
    text: str


def parse_export(
    path: str | Path, day_first: bool | None = None, encoding: str | None = None, chat: str | None = None
) -> Export:
    """Return the messages of the export at `path` (.txt or .zip), to be iterated once.

    `day_first` decides the order of day and month where the dates allow both; `encoding` overrides the detection; `chat`
    names one of several exports in a zip. For a folder, call it with each of `find_exports(folder)`.
    Raises ExportError for a file that is not a readable export; for a zip damaged at its end only while iterating.
    """
    return Export(ExportSource(Path(path), encoding, chat), day_first)


class Export:
    """An iterator over the messages of one export; counts and warnings are complete once it is exhausted."""

    def __init__(self, source: ExportSource, day_first: bool | None = None) -> None:
        """Find the format of the headers; raise ExportError when there is none."""
        self._source = source
        with closing(source.lines()) as lines:
            self._format = find_format(lines, day_first)
        self.format_description = self._format.description
        self.date_order = self._format.order.name
        self.is_order_proven = self._format.order.is_proven
        self.num_messages = 0
        self.num_continuation_lines = 0
        self.num_orphan_lines = 0  # before the first message
        self.num_foreign_header_lines = 0  # headers of another format, in pasted text
        self.num_bad_bytes = 0
        self.warnings: list[str] = []
        self._latest_split: tuple[str, list[str]] = ("", [])
        self._messages = self._read_messages()

    def __iter__(self) -> Iterator[Message]:  # noqa: D105
        return self._messages

    def __next__(self) -> Message:  # noqa: D105
        return next(self._messages)

    def has_changed(self) -> bool:
        """Tell whether the file was changed or replaced since it was opened."""
        return self._source.has_changed()

    def _read_messages(self) -> Iterator[Message]:
        # The hot loop of stage 1. Five measures make it twice as fast as one match per line with groups turned into numbers:
        # a pattern of this file alone, applied to many lines at once; caches for the few distinct days, minutes and
        # seconds; str.partition; tuple.__new__ for Message.
        take_lines_apart = re.compile(rf"(?:{self._format.header_re.pattern}|(?P<other>.*))\n").findall
        is_time_first = self._format.shape.is_time_first
        tail_chars, has_marks = self._format.tail_chars, self._format.shape.end != "-"  # iPhones mark notices
        days, times, tails = _Cache(self._format.to_date), _Cache(self._format.to_time), _Cache(self._format.to_tail)
        senders: dict[str, str] = {}  # as written: cleaned
        find_sender, mark = senders.get, LEFT_TO_RIGHT_MARK
        new_tuple, combine = tuple.__new__, datetime.datetime.combine
        waiting: Message | None = None  # for the next header: until then more lines may belong to it
        more_lines: list[str] = []
        num_messages = num_more_chars = 0
        with closing(self._source.blocks()) as blocks:
            for block in blocks:
                for number, (date_text, time_text, rest, line) in enumerate(take_lines_apart(block)):
                    sent_at = None
                    if date_text:
                        if is_time_first:
                            date_text, time_text = time_text, date_text
                        try:
                            if tail_chars:
                                minute, tail = times[time_text[:-tail_chars]], tails[time_text[-tail_chars:]]
                                sent_at = combine(days[date_text], minute) + tail
                            else:
                                sent_at = combine(days[date_text], times[time_text])
                        except TypeError:  # one of them is None: no such day or time
                            line = self._line_of(block, number)
                    if sent_at is None:
                        header = self._read_unusual_header(line)
                        if header is None and waiting is None:
                            self.num_orphan_lines += 1
                            continue
                        if header is None:
                            more_lines.append(line)
                            num_more_chars += len(line)
                            if num_more_chars > MAX_TEXT_CHARS:
                                raise ExportError(
                                    f"a message is longer than {MAX_TEXT_CHARS:,} characters; {EXPORT_AGAIN}"
                                )
                            continue
                        sent_at, rest = header
                    if waiting is not None:
                        if more_lines:
                            waiting = self._with_lines(waiting, more_lines)
                            num_more_chars = 0
                        yield waiting
                        num_messages += 1
                    raw_sender, colon, text = rest.partition(": ")
                    sender = find_sender(raw_sender)
                    if sender is None or not colon or text[:1] == mark:
                        sender, text = split_sender(rest, has_marks)
                        if sender is not None and len(senders) < MAX_CACHED:
                            senders[raw_sender] = sender
                    waiting = new_tuple(Message, (sent_at, sender, text))
            if waiting is not None:
                yield self._with_lines(waiting, more_lines)
                num_messages += 1
        if not num_messages:
            raise ExportError(f"none of its dates and times exists (such as 99/99/2022, 25:61); {EXPORT_AGAIN}")
        self.num_messages = num_messages
        self._warn(days, times)

    def _line_of(self, block: str, number: int) -> str:
        if block is not self._latest_split[0]:
            self._latest_split = block, block.split("\n")
        return self._latest_split[1][number]

    def _with_lines(self, message: Message, more_lines: list[str]) -> Message:
        """Return `message` with the lines that follow its header, and empty `more_lines`."""
        self.num_continuation_lines += len(more_lines)
        text = "\n".join([message.text, *more_lines])
        more_lines.clear()
        return Message(message.sent_at, message.sender, text)

    def _read_unusual_header(self, line: str) -> tuple[datetime.datetime, str] | None:
        """Return time and rest of a header in this file's shape but another spelling; count headers of other shapes."""
        header = read_header(line)
        if header is None:
            return None
        day, time = self._format.to_date(header.date_text), self._format.to_time(header.time_text)
        is_short = header.has_short_numbers and not self._format.has_short_numbers
        if header.shape != self._format.shape or day is None or time is None or is_short:
            self.num_foreign_header_lines += 1
            return None
        return datetime.datetime.combine(day, time), line[len(header.text) :]

    def _warn(self, days: dict[str, datetime.date], times: dict[str, datetime.time]) -> None:
        self.num_bad_bytes = self._source.num_bad_bytes
        if self.num_bad_bytes:
            lines = ", ".join(map(str, self._source.bad_lines))
            self.warnings.append(f"{self.num_bad_bytes:,} bytes that are no text were left out, first in line {lines}")
        if self.num_foreign_header_lines:
            self.warnings.append(
                f"{self.num_foreign_header_lines:,} lines look like messages of another format; kept as text of the message "
                "they stand in"
            )
        if not self.is_order_proven:
            self.warnings.append(f"the order {self.date_order} is a guess: no date excludes the other")
        years = {day.year for day in days.values() if day is not None}
        if years and (min(years) < FIRST_YEAR or max(years) > datetime.date.today().year + 1):
            self.warnings.append(
                f"dates from {min(years)} to {max(years)}: the phone's clock or the order of dates is wrong"
            )
        hours = {time.hour for time in times.values() if time is not None}
        if (
            self._format.is_pm is None
            and len(times) >= MIN_TIMES_OF_A_DAY
            and 12 in hours
            and hours <= set(range(1, 13))
        ):
            self.warnings.append(
                "no time is after 12:59 or before 1:00: if the phone has a 12-hour clock, morning and evening cannot be told "
                "apart; export the chat again with a 24-hour clock"
            )
        if self.has_changed():
            self.warnings.append("the file changed while it was read; run again")


class _Cache(dict[str, Value]):
    """Caches the results of `convert`: a whole chat has a few thousand distinct days, minutes and seconds.

    For a text that `convert` refuses the value is None, against the annotation; using it raises the loop's TypeError.
    """

    def __init__(self, convert: Callable[[str], Value | None]) -> None:
        super().__init__()
        self._convert = convert

    def __missing__(self, text: str) -> Value:
        if len(self) >= MAX_CACHED:
            self.clear()
        value = self[text] = cast(Value, self._convert(text))
        return value


def split_sender(rest: str, has_marks: bool = False) -> tuple[str | None, str]:
    """Split what follows a header into sender and text; the sender of a notice is None.

    `has_marks`: an iPhone wrote it, which puts a group or person and U+200E before notices.

    >>> split_sender("Rut: hi: you")
    ('Rut', 'hi: you')
    >>> split_sender('Rut changed the subject from "A: B" to "C"')
    (None, 'Rut changed the subject from "A: B" to "C"')
    """
    if has_marks:  # `Trip: Eilat: <U+200E>Dan left`: a group's name may hold a colon
        attributed_to, mark, notice = rest.partition(f": {LEFT_TO_RIGHT_MARK}")
        if mark and is_notice(notice, clean_sender(attributed_to)):
            return None, LEFT_TO_RIGHT_MARK + notice
    raw_sender, colon, text = rest.partition(": ")
    if not colon:
        if not rest.endswith(":"):
            return None, rest
        raw_sender = rest[:-1]
    if is_quoting_notice(raw_sender, text):
        return None, rest
    if is_encryption_notice(text):  # some iPhones write it without the mark
        return None, text
    return clean_sender(raw_sender), text


def clean_sender(text: str) -> str:
    """Return a sender's name without the `~` of an unsaved contact and the invisible characters around it.

    >>> clean_sender("~\\u202fRut")
    'Rut'
    """
    name = text.strip(NAME_MARGIN)
    return name[1:].strip(NAME_MARGIN) if name.startswith("~") else name
