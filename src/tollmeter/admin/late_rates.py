"""Rates that came late: what was unknown in a currency is filled in by corrections, once, whoever starts it how often.

Nothing is remembered between runs: a call that has its amounts is left alone, and of two corrections to one revision
the first counts. Prices in USD stay as they are, whatever the price book says by now.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta

import polars as pl

from tollmeter.admin.corrections import Plan
from tollmeter.admin.reprice import Slice, Wanted, last_of, parts_of, slices
from tollmeter.admin.sending import Send
from tollmeter.sinks.clickhouse.client import ClickHouse
from tollmeter.sinks.clickhouse.queries import load
from tollmeter.streams.price.book.book import PriceBook
from tollmeter.streams.rules.pricing.fx import CURRENCIES, Rates
from tollmeter.streams.rules.pricing.rates import day_number
from tollmeter.streams.rules.windows.amend import filled

REASON = "exchange rates came late"


@dataclass(frozen=True, slots=True)
class Filled:
    """How many calls got an amount, the days they are of, and what was sent last."""

    calls: int = 0
    days: tuple[date, ...] = ()
    last: Plan = field(default_factory=Plan)


def fill(client: ClickHouse, book: PriceBook, send: Send, done: Callable[[int], None]) -> Filled:
    """Send a correction for each call that has a rate by now and had none. Raises `Unavailable`, `CorrectionError`."""
    calls, days, last = 0, list[date](), Plan()
    for day, one in _waiting(client, book):
        now, changed = filled(one.rows, book.convert)
        was, now = one.rows.filter(changed), now.filter(changed)
        if was.height:
            _explain(client, book, now)
            parts = parts_of(was, now)
            send(parts)
            calls, last = calls + was.height, last_of(parts, last)
            days += [] if day in days else [day]
        done(was.height)
    return Filled(calls, tuple(days), last)


def _waiting(client: ClickHouse, book: PriceBook) -> Iterator[tuple[date, Slice]]:
    """Yield the calls of each day that has a rate by now of a currency in which some are unknown."""
    by_day: dict[date, list[str]] = {}
    for currency in CURRENCIES:
        rates = Rates([rate for rate in book.fx if rate.currency == currency])
        for row in client.query(load("fx_days"), {"currencies": [currency]}):
            at = rates.at(day_number(row["day"]))
            if at is not None and day_number(row["day"]) - at[0] <= book.staleness.max_age_days:
                by_day.setdefault(row["day"], []).append(currency)
    for day, currencies in sorted(by_day.items()):
        since = datetime.combine(day, time(), UTC)
        wanted = Wanted(since, since + timedelta(days=1), currencies=tuple(currencies))
        for one in slices(client, wanted):
            yield day, one


def _explain(client: ClickHouse, book: PriceBook, rows: pl.DataFrame) -> None:
    """Store the rates of these rows under the book that each names, where whoever checks an amount looks."""
    known = {(rate.currency, rate.day): rate for rate in book.fx}
    used = [
        (price_book, day, currency, known[currency, day].per_usd_nano, known[currency, day].source)
        for currency in CURRENCIES
        for price_book, day in rows.select("price_book", f"fx_{currency.lower()}_date").unique().iter_rows()
        if (currency, day) in known
    ]
    client.insert_rows("fx_rates", ("price_book", "day", "currency", "per_usd_nano", "source"), used)
