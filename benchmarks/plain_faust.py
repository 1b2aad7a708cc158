"""The same job as an ordinary Faust agent: take, decode, price from a dict, minute windows per scope, rows out.

It is what the line is compared with: idiomatic Faust, and careful (one insert per batch, no sleep, rates in a dict). It
folds the same eight kinds of scope, and does less beside: minutes alone, no hours, days or months, no budgets, alerts,
cost components or currencies, no resends recognised, and a killed worker counts wrong. `tables` keeps windows in
Faust's tumbling tables, `dicts` in plain dicts.

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
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from urllib.request import Request, urlopen

import faust
import orjson
from fastavro import parse_schema, schemaless_reader
from faust.serializers import codecs

from benchmarks.plain_rates import Rates, cost_nano, loads
from tollmeter.schemas import topics
from tollmeter.schemas.codec import PLAIN_SCHEMA, SINGLE_OBJECT_HEADER
from tollmeter.schemas.policy import SCOPE_COLUMNS
from tollmeter.settings import Settings

BATCH = 1_000
MINUTE_US = 60_000_000
KINDS = SCOPE_COLUMNS
"""Kind of scope -> field of the event that names it."""
SCHEMA = parse_schema(PLAIN_SCHEMA)
Totals = list[int]


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
    """Minute totals in plain dicts."""

    def __init__(self) -> None:
        self._totals: dict[tuple[str, str, int], Totals] = {}

    def add(self, kind: str, name: str, at_us: int, totals: Totals) -> None:
        cell = (kind, name, at_us // MINUTE_US)
        now = self._totals.get(cell)
        self._totals[cell] = totals if now is None else [a + b for a, b in zip(now, totals, strict=True)]

    def rows(self) -> list[dict[str, Any]]:
        return [_window_row(kind, name, minute * 60, t) for (kind, name, minute), t in self._totals.items()]


class TableWindows:
    """Minute totals in Faust tables with tumbling windows, a changelog topic behind each."""

    def __init__(self, app: faust.App, partitions: int) -> None:
        self._tables = {
            kind: app.Table(
                f"by_{kind}", default=lambda: [0, 0, 0, 0], partitions=partitions, use_partitioner=True
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
            _window_row(kind, name, int(start), totals)
            for kind, wrapper in self._tables.items()
            for (name, (start, _end)), totals in wrapper.table.data.items()
        ]


def _window_row(kind: str, name: str, second: int, totals: Totals) -> dict[str, Any]:
    calls, tokens_in, tokens_out, cost = totals
    return {
        "kind": kind, "name": name, "minute": second, "calls": calls, "input_tokens": tokens_in,
        "output_tokens": tokens_out, "cost_nano": cost,
    }  # fmt: skip


class Job:
    """One agent's work on a batch, and the stopwatch: it starts behind the first batch: warm-up is out."""

    def __init__(
        self, store: Store, windows: DictWindows | TableWindows, rates: Rates, events: int, report: Path
    ) -> None:
        self._store, self._windows, self._rates = store, windows, rates
        self._wanted, self._report = events, report
        self._done = 0
        self._started: tuple[int, float, float] | None = None

    async def take(self, batch: list[dict[str, Any]]) -> bool:
        """Price, fold and insert a batch; True when enough events are done and reported."""
        rows = batch[: self._wanted - self._done]
        for row in rows:
            cost = row["cost_nano"] = cost_nano(self._rates, row)
            totals = [1, row["input_tokens"], row["output_tokens"], cost or 0]
            row["model"] = row["model_used"] or row["model_sent"]
            for kind, field in KINDS.items():
                if row[field] or kind == "org":
                    self._windows.add(kind, f"{row['org_id']}/{row[field]}", row["occurred_at"], totals)
        await asyncio.to_thread(self._store.insert, "plain_events", rows)
        self._done += len(rows)
        if self._started is None:
            self._started = (self._done, time.monotonic(), _cpu())
        if self._done < self._wanted:
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
        f"{group}-{windows}", broker=f"kafka://{settings.kafka}", store="memory://", web_enabled=False,
        topic_partitions=settings.partitions_events, topic_replication_factor=1, topic_allow_declare=True,
        datadir=tempfile.mkdtemp(prefix="plain-faust-"), consumer_auto_offset_reset="earliest",
    )  # fmt: skip
    topic = app.topic(settings.topic(topics.EVENTS), value_serializer="usage_event")
    kept = TableWindows(app, settings.partitions_events) if windows == "tables" else DictWindows()
    job = make_job(Store(settings), kept)

    @app.agent(topic)  # type: ignore[untyped-decorator]  # Faust is read untyped
    async def meter(stream: Any) -> None:
        async for batch in stream.take(BATCH, within=1):
            if await job.take(batch):
                os._exit(0)  # an orderly stop of the worker takes seconds and measures nothing

    return app


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("windows", choices=("tables", "dicts"))
    parser.add_argument("--events", type=int, default=20_000)
    parser.add_argument("--group", default="plain-faust")
    parser.add_argument("--rates", type=Path, required=True, help="rates as benchmarks.baseline writes them")
    parser.add_argument("--report", type=Path, required=True)
    chosen = parser.parse_args()
    rates = loads(chosen.rates.read_text())

    def job(store: Store, windows: DictWindows | TableWindows) -> Job:
        return Job(store, windows, rates, chosen.events, chosen.report)

    app = build(Settings.from_environment(os.environ), chosen.windows, chosen.group, job)
    faust.Worker(app, loglevel="ERROR", logfile=None).execute_from_commandline()


if __name__ == "__main__":
    main()
