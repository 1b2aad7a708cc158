"""Money in another currency at the last rate on or before the event's UTC day: exact, half to even, NULL without one.

A rate that is too old for the day is no rate: the amount is NULL. With a margin it is an amount at risk, for limits.

A rate is an integer: nano units of the currency for one USD. 1e12 nano-USD times 1e15 overflows int64, so columns are
multiplied in two halves.
"""

from bisect import bisect_right
from collections.abc import Sequence
from datetime import date
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tollmeter.schemas.money import NANO_PER_USD, round_half_even
from tollmeter.streams.rules.pricing.rates import day_number

Ints = NDArray[np.int64]

CURRENCIES = ("EUR", "RUB")
MAX_PER_USD_NANO = 10**15
"""A million units for one USD: beyond it a rate is a typing error."""


class Rate(NamedTuple):
    """One dated rate and where it comes from."""

    day: date
    currency: str
    per_usd_nano: int
    source: str


class Staleness(NamedTuple):
    """From when on a rate is too old, and how much dearer limits count with it then."""

    max_age_days: int
    margin_pct: int

    def raised(self, per_usd_nano: Ints) -> Ints:
        """Return rates with the margin, rounded up: never below what the amount turns out to be by it."""
        return np.asarray(-(-per_usd_nano * (100 + self.margin_pct) // 100), np.int64)


class Rates:
    """The rates of one currency by day."""

    def __init__(self, rates: Sequence[Rate]) -> None:
        ordered = sorted(rates)
        self.days = [day_number(rate.day) for rate in ordered]
        self.values = [rate.per_usd_nano for rate in ordered]
        # Place 0 stands for "before the first rate".
        self._days = np.array([0, *self.days], np.int64)
        self._values = np.array([0, *self.values], np.int64)

    def at(self, day: int) -> tuple[int, int] | None:
        """Return (day of the rate, rate) in force on a day."""
        place = bisect_right(self.days, day)
        return (self.days[place - 1], self.values[place - 1]) if place else None

    def find(self, days: Ints) -> tuple[Ints, Ints]:
        """Return the day and the rate in force for each day; rate 0 = none."""
        if len(days) and self.days:
            low, high = bisect_right(self.days, int(days.min())), bisect_right(self.days, int(days.max()))
            if low == high:  # the usual case: one rate for the whole batch
                return np.full(len(days), self._days[low]), np.full(len(days), self._values[low])
        place = np.searchsorted(self._days[1:], days, side="right")
        return self._days[place], self._values[place]


def convert(nano_usd: int, per_usd_nano: int) -> int:
    """Return an amount in nano units of the currency."""
    return round_half_even(nano_usd * per_usd_nano, NANO_PER_USD)


def convert_columns(nano_usd: Ints, per_usd_nano: Ints) -> Ints:
    """Do `convert` for columns; amounts between 0 and `MAX_EVENT_NANO`."""
    whole_rate, rate = np.divmod(per_usd_nano, NANO_PER_USD)
    whole, amount = np.divmod(nano_usd, NANO_PER_USD)
    quotient, rest = np.divmod(amount * rate, NANO_PER_USD)
    result = nano_usd * whole_rate + whole * rate + quotient
    half = NANO_PER_USD // 2
    return np.asarray(result + ((rest > half) | ((rest == half) & (result & 1 == 1))), np.int64)
