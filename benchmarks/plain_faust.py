"""The same job as an ordinary Faust agent: take, decode, price from a dict, minute windows per scope, rows out.

It is what the line is compared with: idiomatic Faust, and careful (one insert per batch, no sleep, rates in a dict).
`dicts` does the line's job in plain dicts: resends recognised, costs by component and in other currencies, windows of a
minute, an hour, a day and a month for the same eight kinds of scope. It still lacks money at risk, budgets and alerts,
and a killed worker counts wrong. `minutes` leaves out all windows but minutes; `tables` does the same minutes
in Faust's tumbling tables.

    python -m benchmarks.plain_faust tables --events 20000 --rates FILE --report FILE
"""

import argparse
import asyncio
import io
import json
import os
import resource
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from urllib.request import Request, urlopen

import faust
import orjson
from fastavro import parse_schema, schemaless_reader
from faust.serializers import codecs

from benchmarks.plain_rates import KINDS, PARTS, PlainRates, costs, currencies_of_today, in_currency, loads
from tollmeter.schemas import topics
from tollmeter.schemas.codec import PLAIN_SCHEMA, SINGLE_OBJECT_HEADER
from tollmeter.settings import Settings

BATCH = 1_000
STARTS: dict[str, Callable[[int], int]] = {
    "minute": lambda at_us: at_us // 60_000_000 * 60,
    "hour": lambda at_us: at_us // 3_600_000_000 * 3_600,
    "day": lambda at_us: at_us // 86_400_000_000 * 86_400,
    "month": lambda at_us: _month(at_us // 86_400_000_000),  # type: ignore[has-type]
}
"""Level -> start of the window of an instant (microseconds since 1970), in seconds."""
MEASURES = (
    "calls",
    "errors",
    "blocked",
    "unpriced",
    "input_tokens",
    "cache_read_tokens",
    "output_tokens",
    "cost_nano",
    "byok_cost_nano",
    "cost_eur_nano",
    "cost_rub_nano",
)
VARIANTS = {"tables": ("minute",), "minutes": ("minute",), "dicts": tuple(STARTS)}
SCHEMA = parse_schema(PLAIN_SCHEMA)
Totals = list[int]


@lru_cache
def _month(day: int) -> int:
    return int(datetime.fromtimestamp(day * 86_400, UTC).replace(day=1).timestamp())


class UsageCodec(codecs.Codec):  # type: ignore[misc]  # Faust is read untyped
    """Avro single-object encoding, record by record."""

    def _loads(self, data: bytes) -> Any:
        return schemaless_reader(io.BytesIO(data[len(SINGLE_OBJECT_HEADER) :]), SCHEMA, None)


codecs.register("usage_event", UsageCodec())


class Store:
    """Inserts rows into ClickHouse over HTTP, as JSON lines: the cheapest way for rows that are dicts."""

    def __init__(self, settings: Settings) -> None:
        self._url = settings.clickhouse
        self._database = settings.clickhouse_database
        self._headers = {
            "X-ClickHouse-User": settings.clickhouse_user,
            "X-ClickHouse-Key": settings.clickhouse_password.get_secret_value(),
        }

    def insert(self, table: str, rows: list[dict[str, Any]]) -> None:
        query = urlencode({"query": f"INSERT INTO {table} FORMAT JSONEachRow", "database": self._database})
        body = b"\n".join(map(orjson.dumps, rows))
        with urlopen(Request(f"{self._url}/?{query}", data=body, headers=self._headers), timeout=60) as answer:
            answer.read()


class DictWindows:
    """Totals by minute and, where wanted, hour, day and month, in plain dicts."""

    def __init__(self, levels: Sequence[str]) -> None:
        self._starts = [(level, STARTS[level]) for level in levels]
        self._totals: dict[tuple[str, str, str, int], Totals] = {}

    def add(self, kind: str, name: str, at_us: int, totals: Totals) -> None:
        for level, start in self._starts:
            cell = (level, kind, name, start(at_us))
            now = self._totals.get(cell)
            if now is None:
                self._totals[cell] = totals.copy()
            else:
                for place, value in enumerate(totals):
                    now[place] += value

    def rows(self) -> list[dict[str, Any]]:
        return [window_row(*cell, totals) for cell, totals in self._totals.items()]


class TableWindows:
    """Minute totals in Faust tables with tumbling windows, a changelog topic behind each."""

    def __init__(self, app: faust.App, partitions: int) -> None:
        self._tables = {
            kind: app.Table(
                f"by_{kind}", default=lambda: [0] * len(MEASURES), partitions=partitions, use_partitioner=True
            ).tumbling(60, expires=86_400)
            for kind in KINDS
        }

    def add(self, kind: str, name: str, at_us: int, totals: Totals) -> None:
        # Inside take() there is no current event, so relative_to_stream() fails: the time is given by hand.
        table, at = self._tables[kind].table, at_us / 1e6
        now = table._windowed_timestamp(name, at)
        table._set_windowed(name, [a + b for a, b in zip(now, totals, strict=True)], at)

    def rows(self) -> list[dict[str, Any]]:
        return [
            window_row("minute", kind, name, int(start), totals)
            for kind, wrapper in self._tables.items()
            for (name, (start, _end)), totals in wrapper.table.data.items()
        ]


def window_row(level: str, kind: str, name: str, second: int, totals: Totals) -> dict[str, Any]:
    return {"level": level, "kind": kind, "name": name, "start": second, **dict(zip(MEASURES, totals, strict=True))}


class Job:
    """One agent's work on a batch, and the stopwatch: it starts behind the first batch: warm-up is out."""

    def __init__(
        self,
        store: Store,
        windows: DictWindows | TableWindows,
        rates: PlainRates,
        currencies: dict[str, int],
        events: int,
        report: Path,
    ) -> None:
        self._store, self._windows, self._rates, self._currencies = store, windows, rates, currencies
        self._wanted, self._report = events, report
        self._seen: set[str] = set()
        self._taken = self._done = 0
        self._started: tuple[int, float, float] | None = None

    def _price(self, row: dict[str, Any]) -> Totals:
        """Add the costs of a row to it, and return what it adds to each window."""
        priced = costs(self._rates, row)
        cost, parts = priced if priced is not None else (None, [None] * 5)
        row["cost_nano"] = cost
        row |= zip(PARTS, parts, strict=True)
        row["model"] = row["model_used"] or row["model_sent"]
        for currency, rate in self._currencies.items():
            row[f"cost_{currency.lower()}_nano"] = in_currency(rate, cost) if rate and cost is not None else None
        byok = row["billing_scope"] == "USER"
        return [
            1,
            row["status"] == "ERROR",
            row["status"] == "BLOCKED",
            cost is None,
            row["input_tokens"],
            row["cache_read_tokens"],
            row["output_tokens"],
            0 if byok else cost or 0,
            cost or 0 if byok else 0,
            0 if byok else row.get("cost_eur_nano") or 0,
            0 if byok else row.get("cost_rub_nano") or 0,
        ]

    async def take(self, batch: list[dict[str, Any]]) -> bool:
        """Price, fold and insert a batch; True when enough events are done and reported."""
        batch = batch[: self._wanted - self._taken]
        self._taken += len(batch)
        rows = []
        for row in batch:
            if row["event_id"] in self._seen:
                continue  # the producer sent it twice
            self._seen.add(row["event_id"])
            rows.append(row)
            totals = self._price(row)
            for kind, field in KINDS.items():
                if row[field] or kind == "org":
                    self._windows.add(kind, f"{row['org_id']}/{row[field]}", row["occurred_at"], totals)
        await asyncio.to_thread(self._store.insert, "plain_events", rows)
        self._done += len(rows)
        if self._started is None:
            self._started = (self._done, time.monotonic(), _cpu())
        if self._taken < self._wanted:
            return False
        await asyncio.to_thread(self._store.insert, "plain_windows", self._windows.rows())
        first, since, cpu = self._started
        report = {"events": self._done, "timed": self._done - first, "seconds": time.monotonic() - since}
        self._report.write_text(json.dumps({**report, "cpu_s": _cpu() - cpu}))
        return True


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def build(settings: Settings, windows: str, group: str, make_job: Callable[..., Job]) -> faust.App:
    """Return the app: one agent on the events topic, from its beginning."""
    app = faust.App(
        f"{group}-{windows}",
        broker=f"kafka://{settings.kafka}",
        store="memory://",
        web_enabled=False,
        topic_partitions=settings.partitions_events,
        topic_replication_factor=1,
        topic_allow_declare=True,
        datadir=tempfile.mkdtemp(prefix="plain-faust-"),
        consumer_auto_offset_reset="earliest",
    )
    topic = app.topic(settings.topic(topics.EVENTS), value_serializer="usage_event")
    kept = TableWindows(app, settings.partitions_events) if windows == "tables" else DictWindows(VARIANTS[windows])
    job = make_job(Store(settings), kept)

    @app.agent(topic)  # type: ignore[untyped-decorator]  # Faust is read untyped
    async def meter(stream: Any) -> None:
        async for batch in stream.take(BATCH, within=1):
            if await job.take(batch):
                os._exit(0)  # an orderly stop of the worker takes seconds and measures nothing

    return app


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("windows", choices=tuple(VARIANTS))
    parser.add_argument("--events", type=int, default=20_000)
    parser.add_argument("--group", default="plain-faust")
    parser.add_argument("--rates", type=Path, required=True, help="rates as benchmarks.baseline writes them")
    parser.add_argument("--report", type=Path, required=True)
    chosen = parser.parse_args()
    settings = Settings.from_environment(os.environ)
    rates, currencies = loads(chosen.rates.read_text()), currencies_of_today(settings)

    def job(store: Store, windows: DictWindows | TableWindows) -> Job:
        return Job(store, windows, rates, currencies, chosen.events, chosen.report)

    app = build(settings, chosen.windows, chosen.group, job)
    faust.Worker(app, loglevel="ERROR", logfile=None).execute_from_commandline()


if __name__ == "__main__":
    main()
