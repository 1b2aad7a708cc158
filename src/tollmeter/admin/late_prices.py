"""Models that had no price: their calls are priced by a book that knows them, by corrections, once, at a bounded rate.

Nothing is remembered between runs: which calls wait follows from the rows, so a run that was killed is completed by the
next, and of two corrections to one revision the first counts. What has a cost keeps it, whatever the book says by now.
"""

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta

import polars as pl

from tollmeter.admin.corrections import Plan
from tollmeter.admin.reprice import Pace, Wanted, last_of, parts_of, slices
from tollmeter.admin.sending import Send
from tollmeter.sinks.clickhouse.client import ClickHouse
from tollmeter.sinks.clickhouse.queries import load
from tollmeter.streams.price.book.book import PriceBook
from tollmeter.streams.rules.records.encode import PRICED_DTYPES
from tollmeter.streams.rules.windows.amend import repriced

REASON = "a price came late"


@dataclass(frozen=True, slots=True)
class Priced:
    """How many calls have a cost now, the models they are of, and what was sent last."""

    calls: int = 0
    models: tuple[str, ...] = ()
    last: Plan = field(default_factory=Plan)


def fill(client: ClickHouse, book: PriceBook, send: Send, pace: Pace, done: Callable[[int], None]) -> Priced:
    """Send a correction for each call that has a price by now and had none. Raises `Unavailable`, `CorrectionError`."""
    calls, models, last = 0, set[str](), Plan()
    for wanted in _waiting(client, book):
        for one in slices(client, wanted):
            now, _ = repriced(one.rows, book.price)
            known = now["cost_nano"].is_not_null()
            was, now = one.rows.filter(known), now.filter(known)
            if was.height:
                parts = parts_of(was, now)
                pace.wait(was.height)
                send(parts)
                calls, last = calls + was.height, last_of(parts, last)
                models |= set(was["model_id"].unique())
            done(was.height)
    return Priced(calls, tuple(sorted(models)), last)


def _waiting(client: ClickHouse, book: PriceBook) -> Iterator[Wanted]:
    """Yield, for each day, the calls of models that the book knows by now."""
    kinds = pl.read_ipc_stream(io.BytesIO(client.arrow(load("unpriced_kinds")))).rename({"id": "event_id"})
    rows = kinds.select(pl.col(name).cast(kind) for name, kind in PRICED_DTYPES.items())
    now, _ = repriced(rows, book.price)
    known = rows.filter(now["cost_nano"].is_not_null())
    by_day: dict[date, set[str]] = {}
    for when, model in known.select("event_time", "model_id").iter_rows():
        by_day.setdefault(when.date(), set()).add(model)
    for day, models in sorted(by_day.items()):
        since = datetime.combine(day, time(), UTC)
        yield Wanted(since, since + timedelta(days=1), unknown=tuple(sorted(models)))
