"""The exchange rates by which a guard applies limits in EUR and RUB: the last one known, dearer where it is too old."""

from collections.abc import Iterable, Mapping
from datetime import date
from typing import NamedTuple

from tollmeter.schemas.money import NANO_PER_USD, round_half_even
from tollmeter.streams.rules.pricing.rates import day_number


class InForce(NamedTuple):
    """A rate of today: nano-units for one USD, the margin in it where it is `stale`."""

    per_usd_nano: int
    stale: bool

    def convert(self, nano_usd: int) -> int:
        """Return an amount in nano-units of the currency."""
        return round_half_even(nano_usd * self.per_usd_nano, NANO_PER_USD)


class Exchange:
    """The rates of one price book. `staleness` as the book states it: {max_age_days, margin_pct}; without, none is old.

    Immutable but for what it remembers of a day; for any thread.
    """

    def __init__(self, rows: Iterable[Mapping[str, object]], staleness: Mapping[str, int] | None) -> None:
        self._rows = sorted((_day(row["day"]), str(row["currency"]), int(str(row["per_usd_nano"]))) for row in rows)
        self._staleness = staleness
        self._today: tuple[int, dict[str, InForce]] = (-1, {})

    def on(self, day: int) -> Mapping[str, InForce]:
        """Return the last rate of each currency on or before a day (days since 1970); none where none is known."""
        known_day, rates = self._today
        if known_day != day:
            last = {currency: (at, value) for at, currency, value in self._rows if at <= day}
            rates = {currency: self._aged(day - at, value) for currency, (at, value) in last.items()}
            self._today = day, rates
        return rates

    def _aged(self, age_days: int, per_usd_nano: int) -> InForce:
        if self._staleness is None or age_days <= self._staleness["max_age_days"]:
            return InForce(per_usd_nano, stale=False)
        return InForce(-(-per_usd_nano * (100 + self._staleness["margin_pct"]) // 100), stale=True)


def _day(text: object) -> int:
    return day_number(date.fromisoformat(str(text)))
