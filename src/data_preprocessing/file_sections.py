"""An export -> its sections: runs of lines whose headers have one format.

Most files have one section. A file joined from the exports of an old and a new phone has several, and so has a chat whose
phone got another clock or language. Headers of another format that were pasted into a message are no section: what is pasted
was written before the message in which it stands, and a section goes on after it.
"""

from __future__ import annotations

import datetime
import itertools
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from date_order import MIN_FAILURES, DateOrder, date_numbers
from export_file import ExportError
from header_format import NUM_VOTING_HEADERS, HeaderFormat, Section, header_re_of, make_format
from message_header import Header, HeaderShape, read_header

MIN_HEADERS_OF_STRANGERS = 3  # fewer, by people who write nowhere else in the file, may be a pasted note or log
MAX_NAMES = 1_000

MAX_UNCLEAR_DAYS = 400  # between the last day that only one order allows and the first that only the other does

SPLIT_FILE = "give each part as a file of its own"


@dataclass
class _Run:
    """Headers of one shape, without one of another shape between them."""

    shape: HeaderShape
    headers: dict[int, Header] = field(default_factory=dict)  # by line number: the first, and each with a new word
    dates: list[tuple[int, str]] = field(default_factory=list)  # line number and text, once for consecutive lines
    names: Counter[str] = field(default_factory=Counter)
    num_headers: int = 0
    first: tuple[str, str] = ("", "")  # date and time of the first header
    last: tuple[str, str] = ("", "")

    def add(self, number: int, date_text: str, time_text: str, rest: str) -> None:
        self.num_headers += 1
        if not self.dates or self.dates[-1][1] != date_text:
            self.dates.append((number, date_text))
        if not self.first[0]:
            self.first = date_text, time_text
        self.last = date_text, time_text
        name, colon, _ = rest.partition(":")
        if colon and (name in self.names or len(self.names) < MAX_NAMES):
            self.names[name] += 1

    def extend(self, later: _Run) -> None:
        """Append the headers of `later`, which has the same shape."""
        room = max(0, NUM_VOTING_HEADERS - len(self.headers))
        words = {header.word for header in self.headers.values()}
        self.headers |= dict(list(later.headers.items())[:room])
        self.headers |= {number: header for number, header in later.headers.items() if header.word not in words}
        self.dates += later.dates
        self.names += later.names
        self.num_headers += later.num_headers
        self.last = later.last

    def make_format(self, day_first: bool | None) -> HeaderFormat:
        last_voter = max(self.headers)
        later_dates = (text for number, text in self.dates if number > last_voter)
        return make_format(self.headers, day_first, later_dates=later_dates)


def find_sections(lines: Iterable[str], day_first: bool | None) -> list[Section]:
    """Return the sections of a whole file, whose first header stands in the first one.

    Raises ExportError as `find_format` does, and for a part that can be neither a section nor pasted text.
    """
    runs = _choose_sections(_find_runs(lines), day_first)
    formats = [_options(run, day_first) for run in runs]
    chosen = _nearest_orders(runs, formats) if len(runs) > 1 else [options[0] for options in formats]
    return [
        section
        for run, its_format in zip(runs, chosen, strict=True)
        for section in _split_at_new_order(min(run.headers), run, its_format)
    ]


def _options(run: _Run, day_first: bool | None) -> list[HeaderFormat]:
    """Return the formats that `run` may have, the likely one first: several when the order of its dates is a guess."""
    its_format = run.make_format(day_first)
    other = its_format._replace(order=its_format.order.swapped())
    is_only = its_format.order.is_proven or other == its_format or any(not other.to_date(text) for _, text in run.dates)
    return [its_format] if is_only else [its_format, other]


def _nearest_orders(runs: list[_Run], formats: list[list[HeaderFormat]]) -> list[HeaderFormat]:
    """Return for each run the format with which the days of all runs follow each other most closely."""
    best: list[tuple[int, list[HeaderFormat]]] = [(0, [one]) for one in formats[0]]
    for number, options in enumerate(formats[1:], 1):
        best = [
            min(
                (
                    (cost + _num_days_between(runs[number - 1], chosen[-1], runs[number], one), [*chosen, one])
                    for cost, chosen in best
                ),
                key=lambda item: item[0],
            )
            for one in options
        ]
    return min(best, key=lambda item: item[0])[1]


def _num_days_between(before: _Run, format_before: HeaderFormat, after: _Run, format_after: HeaderFormat) -> int:
    one, other = format_before.to_date(before.last[0]), format_after.to_date(after.first[0])
    return abs((other - one).days) if one and other else 0


def _find_runs(lines: Iterable[str]) -> list[_Run]:
    runs: list[_Run] = []
    patterns: dict[HeaderShape, re.Pattern[str]] = {}  # of the runs that are long
    for number, line in enumerate(lines, 1):
        run = runs[-1] if runs else None
        pattern = patterns.get(run.shape) if run else None
        if run and pattern and (match := pattern.match(line)):
            run.add(number, match["date"], match["time"], match["rest"])
            continue
        header = read_header(line)
        if header is None:
            continue
        if run is None or run.shape != header.shape:
            run = _Run(header.shape)
            runs.append(run)
            pattern = patterns.get(header.shape)
        is_new_word = pattern is not None and header.word not in {known.word for known in run.headers.values()}
        if len(run.headers) < NUM_VOTING_HEADERS or is_new_word:
            run.headers[number] = header
        if len(run.headers) == NUM_VOTING_HEADERS and header.shape not in patterns:
            patterns[header.shape] = header_re_of(list(run.headers.values()))
        run.add(number, header.date_text, header.time_text, line[len(header.text) :])
    return runs


def _choose_sections(runs: list[_Run], day_first: bool | None) -> list[_Run]:
    """Return the runs that are sections; others are pasted text."""
    sections = runs[:1]
    for place, run in enumerate(runs[1:], 1):
        current = sections[-1]
        if run.shape == current.shape:
            current.extend(run)
            continue
        following = next((later for later in runs[place + 1 :] if later.shape == current.shape), None)
        known = {name for section in sections for name in section.names}
        if following:
            known |= following.names.keys()
        is_known = any(name in known for name in run.names)
        if following is not None:
            if (is_known or run.num_headers >= MIN_HEADERS_OF_STRANGERS) and _is_between(
                current, run, following, day_first
            ):
                sections.append(run)
        elif is_known or (run.num_headers > 1 and _is_between(current, run, None, day_first)):
            if not _is_web_copy(run.shape):
                sections.append(run)
        elif run.num_headers > current.num_headers:
            if len(sections) > 1 or current.num_headers >= MIN_HEADERS_OF_STRANGERS:
                raise ExportError(f"line {min(run.headers)}: messages of another format begin here; {SPLIT_FILE}")
            sections[-1] = run  # what stands before it is no message
    return sections


def _is_between(before: _Run, run: _Run, after: _Run | None, day_first: bool | None) -> bool:
    """Tell whether the messages of `run` were sent after those before it and before those after it."""
    if _is_web_copy(run.shape):
        return False
    try:
        options, options_before = _options(run, day_first), _options(before, day_first)
    except ExportError:
        return False
    for one, other in itertools.product(options, options_before):
        first, last, previous = _moment(one, run.first), _moment(one, run.last), _moment(other, before.last)
        following = _moment(other, after.first) if after else None
        is_later = first and last and previous and previous <= first <= last != previous
        if is_later and last and (following is None or last <= following):
            return True
    return False


def _moment(its_format: HeaderFormat, texts: tuple[str, str]) -> datetime.datetime | None:
    """Return date and time without seconds, which not all formats have."""
    day, time = its_format.to_date(texts[0]), its_format.to_time(texts[1])
    return datetime.datetime.combine(day, time.replace(second=0)) if day and time else None


def _is_web_copy(shape: HeaderShape) -> bool:
    """Tell whether it is what WhatsApp Web copies, [18:15, 30/9/2022], and no export has."""
    return shape.is_time_first and shape.has_bracket and not shape.has_seconds


# ---- Another order of day and month from some line on ------------------------------------------------------------------


def _split_at_new_order(first_line: int, run: _Run, its_format: HeaderFormat) -> Iterator[Section]:
    """Yield one section, or two when the dates change from one order to the other.

    Raises ExportError when they change more than once.
    """
    swapped = its_format._replace(order=its_format.order.swapped())
    orders = [its_format.order.name, swapped.order.name]
    dates = [  # without those that exist in neither order: somebody pasted them
        (number, text) for number, text in run.dates if its_format.to_date(text) or swapped.to_date(text)
    ]
    bad_lines = [number for number, text in dates if its_format.to_date(text) is None]
    if len(bad_lines) < MIN_FAILURES:
        yield Section(first_line, its_format)
        return
    numbers = [date_numbers(text) or (0, 0, 0) for _, text in dates]
    best: tuple[int, int, str] | None = None  # jumps in days, place, first order
    for one, other in (orders, orders[::-1]):
        before = [DateOrder(one, is_proven=True).to_date(three) for three in numbers]
        after = [DateOrder(other, is_proven=True).to_date(three) for three in numbers]
        first_impossible = next((place for place, day in enumerate(before) if day is None), len(before))
        last_impossible = max((place for place, day in enumerate(after) if day is None), default=-1)
        for place in range(last_impossible + 1, min(first_impossible, last_impossible + MAX_UNCLEAR_DAYS) + 1):
            if 0 < place < len(numbers):
                gap = after[place] - before[place - 1]  # type: ignore[operator]
                within = _jumps(before[last_impossible + 1 : place]) + _jumps(after[place : first_impossible + 1])
                candidate = within + abs(gap.days), place, one
                best = min(best or candidate, candidate)
    if best is None:
        raise ExportError(
            f"line {bad_lines[0]}: the order of day and month changes here, and not for the rest of the file; {SPLIT_FILE}"
        )
    _, place, one = best
    yield Section(first_line, its_format._replace(order=DateOrder(one, is_proven=True)))
    yield Section(dates[place][0], its_format._replace(order=DateOrder(one, is_proven=True).swapped()))


def _jumps(days: list[datetime.date | None]) -> int:
    return sum(abs((other - one).days) for one, other in itertools.pairwise(days) if one and other)
