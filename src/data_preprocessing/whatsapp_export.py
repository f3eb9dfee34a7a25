"""A WhatsApp export -> its messages, in file order, streamed: when each was sent, by whom, and its text.

    for message in parse_export("WhatsApp Chat with Rut.zip"):
        print(message.sent_at, message.sender, message.text)

Standard library alone, and memory that does not grow with the file. What a file is and how to read its bytes is left to
`export_source`, header formats to `header_format`, dropping placeholders to the cleaner, several exports to the script.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from export_source import ExportError, ExportSource, find_exports
from header_format import find_format, read_header
from system_notices import ENCRYPTION_RE, is_notice, is_quoting_notice

__all__ = ["Export", "ExportError", "Message", "find_exports", "parse_export"]

# What may stand around a name: direction marks and spaces, most of them invisible.
STRIPPED = "".join(map(chr, (0x61C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A), 0xFEFF)))
STRIPPED += " \u00a0\u2009\u202f"

MAX_CACHED = 100_000  # distinct times of a day with seconds: 86,400


class Message(NamedTuple):
    """One message as exported. A named tuple: of the immutable records the cheapest to make."""

    sent_at: datetime.datetime
    sender: str | None  # None: WhatsApp's own notice
    text: str


def parse_export(
    path: str | Path, day_first: bool | None = None, encoding: str | None = None, chat: str | None = None
) -> Export:
    """Return the messages of the export at `path` (.txt or .zip), to be iterated once.

    `day_first` settles the order of day and month where the file leaves it open; `encoding` overrides the detection;
    `chat` names one of several exports in a zip. Raises ExportError for a file that is no readable export.
    For a folder, call it for each of `find_exports(folder)`.
    """
    return Export(ExportSource(Path(path), encoding, chat), day_first)


class Export:
    """An iterator over the messages of one export; its counts are complete once it is exhausted."""

    def __init__(self, source: ExportSource, day_first: bool | None = None) -> None:
        """Find the format; raise ExportError when there is none."""
        self._source = source
        self._format = find_format(source.lines(), day_first)
        self.format_description = self._format.description
        self.date_order = self._format.date_order
        self.is_order_proven = self._format.is_order_proven
        self.num_messages = 0
        self.num_continuation_lines = 0
        self.num_orphan_lines = 0
        self.num_foreign_header_lines = 0
        self.num_bad_bytes = 0
        self.warnings: list[str] = []
        self._messages = self._read_messages()

    def __iter__(self) -> Iterator[Message]:
        return self._messages

    def __next__(self) -> Message:
        return next(self._messages)

    def _read_messages(self) -> Iterator[Message]:
        find_header = self._format.header_re.match
        dates = _Cache(self._format.to_date)
        times = _Cache(self._format.to_time)
        senders: dict[str, str] = {}
        new, combine = tuple.__new__, datetime.datetime.combine
        num_messages = 0
        sent_at: datetime.datetime | None = None
        sender: str | None = None
        text = ""
        more: list[str] = []
        for line in self._source.lines():
            match = find_header(line)
            if match is not None:
                day, time, end = dates[match["date"]], times[match["time"]], match.end()
            if match is None or day is None or time is None:
                header = self._find_unusual_header(line)
                if header is None:
                    if sent_at is None:
                        self.num_orphan_lines += 1
                    else:
                        more.append(line)
                    continue
                day, time, end = header
            if sent_at is not None:
                if more:
                    self.num_continuation_lines += len(more)
                    more.insert(0, text)
                    text = "\n".join(more)
                    more = []
                yield new(Message, (sent_at, sender, text))
            num_messages += 1
            sent_at = combine(day, time)
            rest = line[end:]
            raw_sender, colon, text = rest.partition(": ")
            if "\u200e" in rest or raw_sender not in senders:
                sender, text = split_sender(rest)
                if sender is not None and sender not in senders:
                    senders[raw_sender] = sender
            else:
                sender = senders[raw_sender]
        if sent_at is not None:
            yield new(Message, (sent_at, sender, "\n".join([text, *more])))
        self.num_messages = num_messages
        self._collect_warnings()

    def _find_unusual_header(self, line: str) -> tuple[datetime.date, datetime.time, int] | None:
        """Return what a line tells that has this file's header shape in another writing; count headers of other shapes."""
        header = read_header(line)
        if header is None:
            return None
        day = self._format.to_date(header.date_text)
        time = self._format.to_time(header.clock_text)
        if header.shape != self._format.shape or day is None or time is None:
            self.num_foreign_header_lines += 1
            return None
        return day, time, header.length

    def _collect_warnings(self) -> None:
        self.num_bad_bytes = self._source.num_bad_bytes
        if self.num_bad_bytes:
            lines = ", ".join(map(str, self._source.bad_lines))
            self.warnings.append(
                f"{self.num_bad_bytes:,} bytes that are no text were left out (first in lines {lines})"
            )
        if self.num_foreign_header_lines:
            self.warnings.append(
                f"{self.num_foreign_header_lines:,} lines begin like a message of another format and were kept as text"
            )
        if not self.is_order_proven:
            self.warnings.append(
                f"dates were read as {self.date_order}: a guess, none of them excludes the other order"
            )
        if self._source.has_changed():
            self.warnings.append("the file changed while it was read; run again")


class _Cache(dict[str, Any]):
    """Remembers what `convert` made of each text; a few thousand days and times make up a whole chat."""

    def __init__(self, convert: Callable[[str], Any]) -> None:
        super().__init__()
        self._convert = convert

    def __missing__(self, text: str) -> Any:
        if len(self) >= MAX_CACHED:
            self.clear()
        value = self[text] = self._convert(text)
        return value


def split_sender(rest: str) -> tuple[str | None, str]:
    """Split what follows a header into sender and text; the sender of WhatsApp's own notices is None.

    >>> split_sender("Rut: hi: you")
    ('Rut', 'hi: you')
    >>> split_sender("Rut added Dan")
    (None, 'Rut added Dan')
    """
    # iOS: `Trip: Eilat: <U+200E>Dan left`: the name of a group may hold a colon, but only WhatsApp writes that mark.
    raw_sender, colon, text = rest.partition(": \u200e")
    if colon:
        text = "\u200e" + text
        if is_notice(clean_sender(raw_sender), text):
            return None, text
    raw_sender, colon, text = rest.partition(": ")
    if not colon:
        if not rest.endswith(":"):
            return None, rest
        raw_sender = rest[:-1]
    if is_quoting_notice(raw_sender, rest) or ENCRYPTION_RE.match(text):
        return None, rest if not ENCRYPTION_RE.match(text) else text
    return clean_sender(raw_sender), text


def clean_sender(text: str) -> str:
    """Return a sender's name without the `~` of an unsaved contact and without the direction marks around it.

    >>> clean_sender("~\\u202fRut")
    'Rut'
    """
    name = text.strip(STRIPPED)
    return name[1:].strip(STRIPPED) if name.startswith("~") else name
