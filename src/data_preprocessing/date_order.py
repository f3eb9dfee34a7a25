"""The dates of an export -> which of their three numbers is the day, the month and the year.

`01/02/2022` alone does not tell, but all dates of a file together mostly do: only one order makes each of them a day that
exists. When two orders do, the one with fewer steps back in time and the shorter span wins, and is reported as a guess.
Deciding by all dates is whatstk's idea; parsers that decide line by line read some dates wrong without notice.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Collection, Iterable, Iterator
from typing import NamedTuple

from export_file import EXPORT_AGAIN, ExportError
from message_header import MONTHS, NUMBER_RE, Header, plain_word

# Impossible dates that exclude an order early: one or two may have been pasted into a message.
MIN_FAILURES = 3

FIRST_YEAR = 2009  # WhatsApp began
BUDDHIST_YEARS = 543  # the calendar of Thai phones is ahead by so many
FIRST_BUDDHIST_YEAR = 2400

# Years of other calendars: 1401 is 2022 in the Persian one, 1444 in the Islamic one.
OTHER_CALENDAR_YEARS = range(1300, 1600)

SWAPPED = {
    "day/month/year": "month/day/year",
    "month/day/year": "day/month/year",
    "day/year/month": "month/year/day",
    "month/year/day": "day/year/month",
}

# The positions of year, month and day among the three numbers.
ORDERS = {
    "day/month/year": (2, 1, 0),
    "month/day/year": (2, 0, 1),
    "year/month/day": (0, 1, 2),
    "year/day/month": (0, 2, 1),
    "day/year/month": (1, 2, 0),
    "month/year/day": (1, 0, 2),
}


def date_numbers(text: str) -> tuple[int, int, int] | None:
    """Return the three numbers of a date as they stand; a date with a named month is returned as day, month, year.

    >>> date_numbers("2022. 9. 30."), date_numbers("Sep 30, 2013")
    ((2022, 9, 30), (30, 9, 2013))
    """
    numbers = [int(number) for number in NUMBER_RE.findall(text)]
    if len(numbers) == 3:
        return numbers[0], numbers[1], numbers[2]
    words = (plain_word(word) for word in re.findall(r"[^\W\d_]+", text))
    month = next((MONTHS[word] for word in words if word in MONTHS), None)
    return (numbers[0], month, numbers[1]) if len(numbers) == 2 and month else None


class DateOrder(NamedTuple):
    """An order by its name in `ORDERS`, and whether the dates exclude every other."""

    name: str
    is_proven: bool

    def swapped(self) -> DateOrder:
        """Return the order with day and month in each other's place; the same where no country writes the other."""
        return self._replace(name=SWAPPED.get(self.name, self.name))

    def to_date(self, numbers: tuple[int, int, int]) -> datetime.date | None:
        """Return the day, None when no such day exists; two-digit years are 20yy, Buddhist years (2567, 67) are converted.

        >>> DateOrder("day/month/year", is_proven=True).to_date((30, 9, 2565))
        datetime.date(2022, 9, 30)
        """
        year, month, day = (numbers[place] for place in ORDERS[self.name])
        if year < 100:
            year += 2000
            if FIRST_YEAR <= year + 500 - BUDDHIST_YEARS <= datetime.date.today().year:
                year += 500 - BUDDHIST_YEARS  # 67 is 2567 there, and 2024
        elif year > FIRST_BUDDHIST_YEAR:
            year -= BUDDHIST_YEARS
        try:
            return datetime.date(year, month, day)
        except ValueError:
            return None


def find_order(headers: list[Header], later_dates: Iterable[str], day_first: bool | None) -> DateOrder:
    """Return the order of the dates in `headers`, all of one shape, and in `later_dates`, read only as far as needed.

    `day_first` decides the order of day and month where the year comes last. Raises ExportError when `day_first`
    contradicts the dates, or when they are of another calendar.
    """
    shape = headers[0].shape
    if shape.date_kind == "name":
        return DateOrder("day/month/year", is_proven=True)
    candidates = {
        "first": ("year/month/day", "year/day/month"),
        "middle": ("day/year/month", "month/year/day"),
        "last": ("day/month/year", "month/day/year"),
        "short": ("day/month/year", "month/day/year", "year/month/day"),
    }[shape.year_place]
    order, num_impossible = _find_best_order(
        _distinct_dates([header.date_text for header in headers], later_dates),
        candidates,
        _likely_order(headers),
        _unwritten_orders(headers[0]),
    )
    if day_first is not None and shape.year_place != "first":
        day_or_month_first = candidates[:2]  # in this order, where the year does not come first
        wanted = day_or_month_first[0 if day_first else 1]
        if num_impossible[wanted] > num_impossible[order.name]:
            raise ExportError(f"its dates cannot be {wanted}; leave the order of day and month to be found")
        order = DateOrder(wanted, is_proven=True)
    numbers = date_numbers(headers[0].date_text)
    first_day = order.to_date(numbers) if numbers else None
    if first_day is not None and first_day.year in OTHER_CALENDAR_YEARS:
        raise ExportError(f"its dates are of another calendar; set the phone to the Gregorian one and {EXPORT_AGAIN}")
    return order


def _distinct_dates(*parts: Iterable[str]) -> Iterator[tuple[int, int, int]]:
    """Yield the numbers of each date, once for consecutive messages of one day."""
    previous = ""
    for texts in parts:
        for text in texts:
            if text != previous:
                previous = text
                if numbers := date_numbers(text):
                    yield numbers


def _likely_order(headers: list[Header]) -> str:
    """Return the order that most countries with such headers use, for files whose dates allow several."""
    shape = headers[0].shape
    if shape.year_place == "first" or (shape.word_place == "before" and shape.date_kind == "."):
        return "year/month/day"  # Korea: 22. 9. 30. 오후 6:15
    # The United States: 9/30/22, 6:15 PM. Their neighbours write the zero, p. m., or pm.
    is_padded = any(re.search(r"\b0\d/", header.date_text) for header in headers)
    has_capitals = any(header.match["after"].strip() in ("AM", "PM") for header in headers)
    return "month/day/year" if shape.date_kind == "/" and has_capitals and not is_padded else "day/month/year"


def _unwritten_orders(header: Header) -> set[str]:
    """Return the orders that no country uses for dates of this form: the month first with dots, the day before the month in
    the middle, and two digits of the year first with dots but without spaces.
    """
    unwritten = {"year/day/month"}
    if header.shape.date_kind == ".":
        unwritten.add("month/day/year")
        if header.shape.word_place != "before" and ". " not in header.date_text:
            unwritten.add("year/month/day")
    return unwritten


class _Trial:
    """One order tried on the dates of a file."""

    def __init__(self, name: str) -> None:
        self.order = DateOrder(name, is_proven=False)
        self.num_impossible = 0
        self._num_unlikely = 0
        self._num_backward = 0
        self._days: list[datetime.date] = []  # earliest, latest, previous
        self._last_year = datetime.date.today().year + 1

    def add(self, numbers: tuple[int, int, int]) -> None:
        day = self.order.to_date(numbers)
        if day is None:
            self.num_impossible += 1
            return
        self._num_unlikely += not FIRST_YEAR <= day.year <= self._last_year
        earliest, latest, previous = self._days or (day, day, day)
        self._num_backward += day < previous
        self._days = [min(earliest, day), max(latest, day), day]

    @property
    def num_failures(self) -> int:
        """Return for how many dates this order gives no day on which WhatsApp existed."""
        return self.num_impossible + self._num_unlikely

    def faults(self) -> tuple[int, int, int, int]:
        """Return what speaks against this order, the most important count first."""
        span_days = (self._days[1] - self._days[0]).days if self._days else 0
        return self.num_impossible, self._num_unlikely, self._num_backward, span_days


def _find_best_order(
    dates: Iterable[tuple[int, int, int]], candidates: tuple[str, ...], likely: str, unwritten: Collection[str]
) -> tuple[DateOrder, dict[str, int]]:
    """Return the order that fits `dates` (in file order) best, and how many dates are impossible in each order.

    `likely` decides between orders that fit equally well; `unwritten` orders are taken only where no other gives dates that
    exist. `dates` is read only as far as needed.
    """
    trials = [_Trial(name) for name in candidates]
    for numbers in dates:
        for trial in trials:
            trial.add(numbers)
        failures = sorted(trial.num_failures for trial in trials)
        if failures[0] == 0 and all(count >= MIN_FAILURES for count in failures[1:]):
            break

    def faults(trial: _Trial) -> tuple[int | bool, ...]:
        num_impossible, num_unlikely, *smaller = trial.faults()
        name = trial.order.name
        return (num_impossible, num_unlikely, name in unwritten, *smaller, name != likely)

    best, *others = sorted(trials, key=faults)
    is_proven = best.order.name not in unwritten and all(
        trial.num_failures > best.num_failures or trial.order.name in unwritten for trial in others
    )
    return DateOrder(best.order.name, is_proven), {trial.order.name: trial.num_impossible for trial in trials}
