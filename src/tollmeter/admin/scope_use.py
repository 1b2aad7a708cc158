"""What the calls of a scope used of a period, from the ledger, as limits count it; and how old its rates are."""

from datetime import UTC, datetime
from typing import Literal, NamedTuple

from tollmeter.sinks.clickhouse.client import ClickHouse
from tollmeter.sinks.clickhouse.queries import load, moment

Fx = Literal["stale", "none"]
"""Of an amount used: calls are in it by an exchange rate that is too old, and a margin; or miss for want of any."""
FX_WORDS = {
    "stale": "calls are in it by an exchange rate that is too old, and a margin",
    "none": "calls are missing from it for want of an exchange rate: 'tollmeter prices fx update' brings rates",
}


class Use(NamedTuple):
    """What the calls of a scope used of a period: nano-units of each currency, and counts."""

    usd_nano: int
    eur_nano: int
    rub_nano: int
    tokens: int
    requests: int
    eur_stale: int = 0
    eur_unrated: int = 0
    rub_stale: int = 0
    rub_unrated: int = 0
    eur_unrated_nano: int = 0
    rub_unrated_nano: int = 0
    """What calls without a rate cost, in nano-USD."""

    def fx(self, unit: str) -> Fx | None:
        """Return what is to be said of the exchange rates in it; None: nothing."""
        unrated = {"EUR": self.eur_unrated, "RUB": self.rub_unrated}.get(unit, 0)
        stale = {"EUR": self.eur_stale, "RUB": self.rub_stale}.get(unit, 0)
        return "none" if unrated else "stale" if stale else None

    def unrated_nano(self, unit: str) -> int:
        """Return what the calls cost, in nano-USD, that an amount of this unit lacks for want of an exchange rate."""
        return {"EUR": self.eur_unrated_nano, "RUB": self.rub_unrated_nano}.get(unit, 0)

    def of(self, unit: str) -> int:
        """Return what counts toward a limit of this unit."""
        known = {
            "USD": self.usd_nano,
            "EUR": self.eur_nano,
            "RUB": self.rub_nano,
            "tokens": self.tokens,
            "requests": self.requests,
        }
        return known[unit]


def use_of(
    ledger: ClickHouse, org: str, scope: str, name: str, period: tuple[int, int], *, own_keys: bool = False
) -> Use:
    """Return what a scope used of a period, from the ledger. Raises `Unavailable`."""
    wanted = {"org": org, "scope": scope, "name": name, "own": int(own_keys), **span(period)}
    (row,) = ledger.query(load("budget_use"), wanted)
    return Use(**{field: int(row[field]) for field in Use._fields})


def span(period: tuple[int, int]) -> dict[str, str]:
    """Return a period (seconds since 1970) as parameters of a query."""
    start, end = (moment(datetime.fromtimestamp(at_s, UTC)) for at_s in period)
    return {"since": start, "until": end}
