"""A WhatsApp export -> its messages, streamed in file order: when each was sent, by whom, and its text.

    for message in parse_export("WhatsApp Chat with Rut.zip"):
        print(message.sent_at, message.sender, message.text)

It needs the standard library alone, and its memory does not grow with the file. Opening and decoding files is left to
`export_source`, header formats to `header_format`, dropping placeholders to `message_filters`, and merging several exports
to `merged_exports`. Most files have one format and plain names, and are read once. At the first line that the rest of the
file may decide otherwise, the whole file is read for its facts (`file_sections`, `sender_names`), and then again.
"""

from __future__ import annotations

import datetime
import itertools
import re
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple, TypeVar, cast

from date_order import FIRST_YEAR
from export_file import EXPORT_AGAIN, ExportError
from export_source import MAX_TEXT_CHARS, ExportSource, find_exports
from header_format import HeaderFormat, Section, find_format
from message_header import read_header
from sender_names import SenderNames, clean_sender, is_about, is_doubtful, split_sender
from whatsapp_texts import LEFT_TO_RIGHT_MARK

__all__ = ["Export", "ExportError", "Message", "find_exports", "parse_export"]

MAX_CACHED = 10_000  # distinct days, minutes or names; more than any chat has

NUM_FIRST_LINES = 300  # among which a group is created
MAX_SILENCE = datetime.timedelta(days=10)  # of a busy chat, whose next day was not read in the wrong order
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


class _NeedsFacts(Exception):  # noqa: N818 - no error
    """The whole file must be read before the next message can be yielded."""


class Export:
    """An iterator over the messages of one export; counts and warnings are complete once it is exhausted."""

    def __init__(self, source: ExportSource, day_first: bool | None = None) -> None:
        """Find the format of the headers; raise ExportError when there is none."""
        self._source = source
        self._day_first = day_first
        self._names: SenderNames | None = None  # the facts of the whole file, where they are needed
        with closing(source.lines()) as lines:
            its_format = find_format(lines, day_first)
        self._sections = [] if its_format is None else [Section(1, its_format)]
        self._start()
        if its_format is None or self._is_group_of_iphone(its_format):
            self._gather_facts()

    def _is_group_of_iphone(self, its_format: HeaderFormat) -> bool:
        """Tell whether the first lines hold a notice behind its actor's name: then the group may "say" the first ones."""
        if its_format.shape.end == "-":
            return False
        with closing(self._source.lines()) as lines:
            for match in map(its_format.header_re.match, itertools.islice(lines, NUM_FIRST_LINES)):
                raw_sender, colon, text = match["rest"].partition(": ") if match else ("", "", "")
                if colon and is_about(clean_sender(raw_sender), text):
                    return True
        return False

    def again(self) -> Export:
        """Return an iterator over the same messages from the first one on, which finds out nothing anew."""
        other = object.__new__(Export)
        other._source, other._day_first, other._names = self._source, self._day_first, self._names  # noqa: SLF001
        other._sections = self._sections  # noqa: SLF001
        other._start()  # noqa: SLF001
        return other

    def _start(self) -> None:
        self.num_messages = 0
        self.num_continuation_lines = 0
        self.num_orphan_lines = 0  # before the first message
        self.num_foreign_header_lines = 0  # headers of another format, in pasted text
        self.num_bad_bytes = 0
        self.warnings: list[str] = []
        self._num_yielded = 0
        self._latest_split: tuple[str, list[str]] = ("", [])
        self._messages = self._read_messages()

    def __iter__(self) -> Iterator[Message]:  # noqa: D105
        return self._messages

    def __next__(self) -> Message:  # noqa: D105
        return next(self._messages)

    @property
    def format_description(self) -> str:
        """Describe the format, or the formats of all sections."""
        first, *later = self._sections
        return "".join(
            [first.format.description, *(f"; from line {line:,} {other.description}" for line, other in later)]
        )

    @property
    def num_formats(self) -> int:
        """Return how many sections of another format it has."""
        return len(self._sections)

    @property
    def date_order(self) -> str:
        """Name the order of day, month and year."""
        return ", then ".join(dict.fromkeys(section.format.order.name for section in self._sections))

    @property
    def is_order_proven(self) -> bool:
        """Tell whether the dates exclude every other order."""
        return all(section.format.order.is_proven for section in self._sections)

    def has_changed(self) -> bool:
        """Tell whether the file was changed or replaced since it was opened."""
        return self._source.has_changed()

    def _read_messages(self) -> Iterator[Message]:
        try:
            yield from self._read_sections()
        except _NeedsFacts:
            num_yielded = self._num_yielded
            self._gather_facts()
            yield from itertools.islice(self._read_sections(), num_yielded, None)

    def _gather_facts(self) -> None:
        """Read the whole file: for its sections, then for its names."""
        from file_sections import find_sections  # here, because few files need them
        from sender_names import find_names

        with closing(self._source.lines()) as lines:
            self._sections = find_sections(lines, self._day_first)
        self._names = _Unsplit()
        has_marks = any(section.format.shape.end != "-" for section in self._sections)
        self._forget_counts()
        self._names = find_names((message.text for message in self._read_sections()), has_marks)
        self._forget_counts()

    def _forget_counts(self) -> None:
        self.num_continuation_lines = self.num_orphan_lines = self.num_foreign_header_lines = 0
        self.warnings.clear()

    def _parts(self) -> Generator[tuple[str, HeaderFormat], None, None]:
        """Yield the blocks of the file, each with the format of its section."""
        with closing(self._source.blocks()) as blocks:
            if len(self._sections) == 1:
                its_format = self._sections[0].format
                for block in blocks:
                    yield block, its_format
                return
            number, num_lines_before = 0, 0
            for block in blocks:
                lines = block[:-1].split("\n")
                start = 0
                while start < len(lines):
                    end = len(lines)
                    if number + 1 < len(self._sections):
                        end = min(end, self._sections[number + 1].first_line - 1 - num_lines_before)
                    if end > start:
                        yield "\n".join(lines[start:end]) + "\n", self._sections[number].format
                    start = end
                    if end < len(lines):
                        number += 1
                num_lines_before += len(lines)

    def _read_sections(self) -> Iterator[Message]:
        # The hot loop of stage 1. Five measures make it twice as fast as one match per line with groups turned into numbers:
        # a pattern of this file alone, applied to many lines at once; caches for the few distinct days, minutes and
        # seconds; str.partition; tuple.__new__ for Message.
        names = self._names
        its_format: HeaderFormat | None = None
        senders: dict[str, str] = {}  # as written: cleaned
        find_sender, mark = senders.get, LEFT_TO_RIGHT_MARK
        new_tuple, combine = tuple.__new__, datetime.datetime.combine
        waiting: Message | None = None  # for the next header: until then more lines may belong to it
        more_lines: list[str] = []
        num_messages = num_more_chars = 0
        all_days: list[_Cache[datetime.date]] = []  # of each section
        all_times: list[_Cache[datetime.time]] = []
        try:
            with closing(self._parts()) as parts:
                for block, block_format in parts:
                    if block_format is not its_format:
                        its_format = block_format
                        take_lines_apart = re.compile(rf"(?:{its_format.header_re.pattern}|(?P<other>.*))\n").findall
                        is_time_first = its_format.shape.is_time_first
                        tail_chars = its_format.tail_chars
                        has_marks = its_format.shape.end != "-"  # iPhones mark notices
                        days = _Cache(self._checked_to_date(its_format) if names is None else its_format.to_date)
                        times = _Cache(its_format.to_time)
                        tails = _Cache(its_format.to_tail)
                        all_days.append(days)
                        all_times.append(times)
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
                            header = self._read_unusual_header(line, its_format)
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
                            is_new = sender is None
                            if names is None:
                                sender, text = split_sender(rest, has_marks)
                                if is_new and is_doubtful(rest, sender, text, has_marks):
                                    raise _NeedsFacts
                            else:
                                sender, text = names.split(rest, has_marks)
                            if (
                                sender is not None
                                and len(senders) < MAX_CACHED
                                and (names is None or names.may_be_cached(raw_sender, sender))
                            ):
                                senders[raw_sender] = sender
                        waiting = new_tuple(Message, (sent_at, sender, text))
                if waiting is not None:
                    yield self._with_lines(waiting, more_lines)
                    num_messages += 1
        finally:
            self._num_yielded = num_messages  # where a reading with the facts of the file goes on
        if not num_messages:
            raise ExportError(f"none of its dates and times exists (such as 99/99/2022, 25:61); {EXPORT_AGAIN}")
        self.num_messages = num_messages
        self._warn(
            {day.year for days in all_days for day in days.values() if day is not None},
            {time for times in all_times for time in times.values() if time is not None},
        )

    def _checked_to_date(self, its_format: HeaderFormat) -> Callable[[str], datetime.date | None]:
        """Return `to_date` that doubts a day when the other order of day and month gives one nearer to the day before it."""
        other = its_format._replace(order=its_format.order.swapped())
        previous: datetime.date | None = None

        def to_date(text: str) -> datetime.date | None:
            nonlocal previous
            day, other_day = its_format.to_date(text), other.to_date(text)
            if day is None or other_day is None:
                previous = day or previous
                return day
            if previous is not None and abs(other_day - previous) < abs(day - previous) > MAX_SILENCE:
                raise _NeedsFacts
            previous = day
            return day

        return to_date

    def _line_of(self, block: str, number: int) -> str:
        if block is not self._latest_split[0]:
            self._latest_split = block, block.split("\n")
        return self._latest_split[1][number]

    def _with_lines(self, message: Message, more_lines: list[str]) -> Message:
        """Return `message` with the lines that follow its header, and empty `more_lines`."""
        self.num_continuation_lines += len(more_lines)
        sender, text = message.sender, message.text
        if sender is None and more_lines and ": " in f"{more_lines[0]} ":  # a name may hold a line break
            if self._names is None:
                raise _NeedsFacts
            if joined := self._names.join_line_break(text, more_lines):
                sender, text = joined
                del more_lines[0]
        text = "\n".join([text, *more_lines])
        more_lines.clear()
        return Message(message.sent_at, sender, text)

    def _read_unusual_header(self, line: str, its_format: HeaderFormat) -> tuple[datetime.datetime, str] | None:
        """Return time and rest of a header in this section's shape but another spelling; count headers of other shapes."""
        header = read_header(line)
        if header is None:
            return None
        day, time = its_format.to_date(header.date_text), its_format.to_time(header.time_text)
        is_own = header.shape == its_format.shape and header.short_numbers <= its_format.short_numbers
        if not is_own or day is None or time is None:
            if self._names is None:
                raise _NeedsFacts
            self.num_foreign_header_lines += 1
            return None
        return datetime.datetime.combine(day, time), line[len(header.text) :]

    def _warn(self, years: set[int], times: set[datetime.time]) -> None:
        self.num_bad_bytes = self._source.num_bad_bytes
        if self.num_bad_bytes:
            lines = ", ".join(map(str, self._source.bad_lines))
            self.warnings.append(f"{self.num_bad_bytes:,} bytes that are no text were left out, first in line {lines}")
        for repair in self._source.repairs:
            self.warnings.append(f"its text had been read as {repair.name} and saved again; it was repaired")
        if self.num_foreign_header_lines:
            self.warnings.append(
                f"{self.num_foreign_header_lines:,} lines look like messages of another format; kept as text of the message "
                "they stand in"
            )
        if len(self._sections) > 1:
            lines = ", ".join(f"{section.first_line:,}" for section in self._sections[1:])
            self.warnings.append(
                f"it has parts of different formats, read one after the other; a new one begins in line {lines}"
            )
        if not self.is_order_proven:
            self.warnings.append(f"the order {self.date_order} is a guess: no date excludes the other")
        if years and (min(years) < FIRST_YEAR or max(years) > datetime.date.today().year + 1):
            self.warnings.append(
                f"dates from {min(years)} to {max(years)}: the phone's clock or the order of dates is wrong"
            )
        hours = {time.hour for time in times}
        has_half_days = any(section.format.is_pm is not None for section in self._sections)
        if not has_half_days and len(times) >= MIN_TIMES_OF_A_DAY and 12 in hours and hours <= set(range(1, 13)):
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


class _Unsplit(SenderNames):
    """Takes all that follows a header for text."""

    def split(self, rest: str, has_marks: bool) -> tuple[str | None, str]:
        return None, rest
