"""The dates of an export -> which of their three numbers is the day, the month and the year.

`01/02/2022` alone does not tell. All dates of a file together mostly do: only one order makes every one of them a day
that exists. Where two orders do, the calmer one wins and is called a guess. The idea of weighing whole orders over all
dates is whatstk's; deciding per line, as others do, makes silent wrong dates.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable
from typing import NamedTuple

# Dates that an order must fail before it is excluded early: one or two may stand in a message that somebody pasted.
MIN_FAILURES = 3

FIRST_YEAR = 2009  # WhatsApp began
BUDDHIST_YEARS = 543  # what the calendar of Thai phones is ahead
FIRST_BUDDHIST_YEAR = 2400

# Where year, month and day stand among the three numbers.
ORDERS = {
    "day/month/year": (2, 1, 0),
    "month/day/year": (2, 0, 1),
    "year/month/day": (0, 1, 2),
    "year/day/month": (0, 2, 1),
}


class DateOrder(NamedTuple):
    """An order by its name in `ORDERS`, and whether the dates exclude every other."""

    name: str
    is_proven: bool

    def to_date(self, numbers: tuple[int, int, int]) -> datetime.date | None:
        """Return the day that the three numbers name in this order, None when there is none such."""
        return to_date(numbers, self.name)


def to_date(numbers: tuple[int, int, int], order: str) -> datetime.date | None:
    """Return the day, None when there is none such; two-digit years are 20yy, Buddhist years are converted.

    >>> to_date((30, 9, 2565), "day/month/year")
    datetime.date(2022, 9, 30)
    """
    year, month, day = (numbers[place] for place in ORDERS[order])
    if year < 100:
        year += 2000
    elif year > FIRST_BUDDHIST_YEAR:
        year -= BUDDHIST_YEARS
    try:
        return datetime.date(year, month, day)
    except ValueError:
        return None


class _Trial:
    """One order tried on the dates of a file."""

    def __init__(self, order: str) -> None:
        self.order = order
        self.num_impossible = 0
        self._num_unlikely = 0
        self._num_backward = 0
        self._days: list[datetime.date] = []  # earliest, latest, previous
        self._last_year = datetime.date.today().year + 1

    def add(self, numbers: tuple[int, int, int]) -> None:
        day = to_date(numbers, self.order)
        if day is None:
            self.num_impossible += 1
            return
        self._num_unlikely += not FIRST_YEAR <= day.year <= self._last_year
        earliest, latest, previous = self._days or (day, day, day)
        self._num_backward += day < previous
        self._days = [min(earliest, day), max(latest, day), day]

    @property
    def num_failures(self) -> int:
        """Return how many dates this order makes no day of a WhatsApp chat."""
        return self.num_impossible + self._num_unlikely

    def faults(self) -> tuple[int, int, int, int]:
        """Return what speaks against this order, the weightiest first."""
        span_days = (self._days[1] - self._days[0]).days if self._days else 0
        return self.num_impossible, self._num_unlikely, self._num_backward, span_days


def find_date_order(
    dates: Iterable[tuple[int, int, int]], candidates: tuple[str, ...], likely: str
) -> tuple[DateOrder, dict[str, int]]:
    """Return the order that suits `dates` (in file order) best, and how many dates each order makes impossible.

    `likely` decides between orders that suit equally well. `dates` is read only as far as needed.
    """
    trials = [_Trial(order) for order in candidates]
    for numbers in dates:
        for trial in trials:
            trial.add(numbers)
        failures = sorted(trial.num_failures for trial in trials)
        if failures[0] == 0 and all(count >= MIN_FAILURES for count in failures[1:]):
            break
    best, *others = sorted(trials, key=lambda trial: (*trial.faults(), trial.order != likely))
    is_proven = all(trial.num_failures > best.num_failures for trial in others)
    return DateOrder(best.order, is_proven), {trial.order: trial.num_impossible for trial in trials}
