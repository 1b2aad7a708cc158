"""The exchange rates by which a guard applies limits in EUR and RUB: the last one known, dearer where it is too old.

Calls that had no rate when they were priced count by the last one known and the margin, until corrections bring theirs.
"""

from collections.abc import Iterable, Mapping
from datetime import date
from typing import NamedTuple

from tollmeter.schemas.money import NANO_PER_USD, round_half_even
from tollmeter.streams.rules.pricing.rates import day_number

NOTICED, REMEMBERED = 100, 1_000


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
        self._ranges: dict[tuple[str, int, int], tuple[int, int]] = {}

    def on(self, day: int) -> Mapping[str, InForce]:
        """Return the last rate of each currency on or before a day (days since 1970); none where none is known."""
        known_day, rates = self._today
        if known_day != day:
            last = {currency: (at, value) for at, currency, value in self._rows if at <= day}
            rates = {currency: self._aged(day - at, value) for currency, (at, value) in last.items()}
            self._today = day, rates
        return rates

    def unrated(self, currency: str, since_day: int, day: int, spent: int, usd_nano: int) -> int:
        """Return what calls since a day count that `spent` (nano-units) lacks: they had no rate when they were priced.

        All calls together cost `usd_nano`. Rates move within a period, so that less than one part in `NOTICED` may be
        their doing and counts nothing; beyond it as much as may be missing counts.
        """
        last = self.on(day).get(currency)
        if last is None or usd_nano <= 0:
            return 0
        least, most = self._range(currency, since_day, day)
        if usd_nano - -(-spent * NANO_PER_USD // least) <= usd_nano // NOTICED:
            return 0
        missing = usd_nano - spent * NANO_PER_USD // self._dearer(most)
        return last.convert(missing) if last.stale else InForce(self._dearer(last.per_usd_nano), True).convert(missing)

    def _range(self, currency: str, since_day: int, day: int) -> tuple[int, int]:
        """Return the smallest and the largest rate that was in force on some day of these."""
        key = currency, since_day, day
        if key not in self._ranges:
            own = [(at, value) for at, name, value in self._rows if name == currency and at <= day]
            before = [value for at, value in own if at <= since_day][-1:]
            held = [*before, *(value for at, value in own if at > since_day)]
            if len(self._ranges) >= REMEMBERED:
                self._ranges.clear()
            self._ranges[key] = min(held), max(held)
        return self._ranges[key]

    def _dearer(self, per_usd_nano: int) -> int:
        """Return a rate with the margin, rounded up."""
        margin_pct = 0 if self._staleness is None else self._staleness["margin_pct"]
        return -(-per_usd_nano * (100 + margin_pct) // 100)

    def _aged(self, age_days: int, per_usd_nano: int) -> InForce:
        if self._staleness is None or age_days <= self._staleness["max_age_days"]:
            return InForce(per_usd_nano, stale=False)
        return InForce(self._dearer(per_usd_nano), stale=True)


def _day(text: object) -> int:
    return day_number(date.fromisoformat(str(text)))
