"""Past calls priced again: read in slices of time, priced as PRICE does; what differs is sent as corrections, paced.

Nothing is remembered between runs. A row that is as it shall be is left alone, so a run that was killed is completed by
another one; a correction that both of them sent is the same revision, of which the first counts.
"""

import io
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import polars as pl

from tollmeter.admin.corrections import Plan, identity
from tollmeter.admin.reports.asked import NO_FILTER, Asked
from tollmeter.admin.sending import Send
from tollmeter.sinks.clickhouse.client import ClickHouse
from tollmeter.sinks.clickhouse.queries import load
from tollmeter.streams.rules.records.encode import PRICED_DTYPES
from tollmeter.streams.rules.windows.amend import Part, Price, repriced

SLICE_ROWS = 50_000
UTC_ZONE = ZoneInfo("UTC")
GROUPS = ("day", "model_id", "org_id")


@dataclass(frozen=True)
class Wanted:
    """Which calls: [since, until), and filters, "" = all. `unpriced`: only those whose cost is not known.

    `currencies`: only those whose amount in one of them waits for a rate. `unknown`: only those of these models (by
    our names) that had no price.
    """

    since: datetime
    until: datetime
    org: str = ""
    provider: str = ""
    model: str = ""
    unpriced: bool = False
    currencies: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()

    def parameters(self, since: datetime, until: datetime) -> dict[str, object]:
        """Return what the queries of a span ask for."""
        filters = {**NO_FILTER, "org_id": self.org, "provider": self.provider, "model": self.model}
        asked = Asked(since, until, UTC_ZONE, filters).parameters()
        only = {"currencies": list(self.currencies), "unknown": list(self.unknown)}
        return {**asked, **only, "unpriced": self.unpriced}


class Slice(NamedTuple):
    """Calls of a span of time as they are."""

    since: datetime
    until: datetime
    rows: pl.DataFrame


@dataclass
class Summary:
    """What changes: a row for each day, model and organisation, money in nano-USD; unknown costs are counted apart.

    A sum in which no cost is known is None.
    """

    frames: list[pl.DataFrame] = field(default_factory=list)
    calls: int = 0
    changed: int = 0

    def add(self, was: pl.DataFrame, now: pl.DataFrame, changed: pl.Series) -> None:
        """Add the rows of a slice, before and after."""
        self.calls += was.height
        self.changed += int(changed.sum())
        both = was.select(
            pl.col("event_time").dt.date().alias("day"),
            "model_id",
            "org_id",
            pl.col("cost_nano").alias("before"),
            now["cost_nano"].alias("after"),
            changed.alias("changed"),
        )
        self.frames.append(both.group_by(GROUPS).agg(*_MEASURES))

    def rows(self) -> list[dict[str, Any]]:
        """Return the groups in which anything changes, by day, model and organisation."""
        if not self.frames:
            return []
        whole = _known(pl.concat(self.frames).group_by(GROUPS).agg(pl.all().sum()))
        return list(whole.filter(pl.col("changed") > 0).sort(GROUPS).iter_rows(named=True))


_MEASURES = (
    pl.len().cast(pl.Int64).alias("calls"),
    pl.col("changed").sum().cast(pl.Int64),
    pl.col("before").sum().alias("before_nano"),
    pl.col("after").sum().alias("after_nano"),
    pl.col("before").is_null().sum().cast(pl.Int64).alias("unpriced_before"),
    pl.col("after").is_null().sum().cast(pl.Int64).alias("unpriced_after"),
)


def _known(frame: pl.DataFrame) -> pl.DataFrame:
    """Return sums and their difference, without those of which nothing is known."""
    sums = {
        f"{side}_nano": pl.when(pl.col(f"unpriced_{side}") < pl.col("calls")).then(pl.col(f"{side}_nano"))
        for side in ("before", "after")
    }
    return frame.with_columns(**sums).with_columns(difference_nano=pl.col("after_nano") - pl.col("before_nano"))


def slices(client: ClickHouse, wanted: Wanted) -> Iterator[Slice]:
    """Yield the calls that are meant, oldest first, about `SLICE_ROWS` at a time. Raises `Unavailable`.

    Sorted here, what is close in time travels together: WATCH folds few minutes for each record.
    """
    for since, until in _spans(client, wanted):
        answer = client.arrow(load("reprice_rows"), wanted.parameters(since, until))
        rows = pl.read_ipc_stream(io.BytesIO(answer)).rename({"id": "event_id"})
        rows = rows.select(pl.col(name).cast(kind) for name, kind in PRICED_DTYPES.items())
        yield Slice(since, until, rows.sort("event_time", "org_id", "event_id"))


def count(client: ClickHouse, wanted: Wanted) -> int:
    """Return how many calls are meant."""
    return sum(row["calls"] for row in _minutes(client, wanted))


def _minutes(client: ClickHouse, wanted: Wanted) -> list[dict[str, Any]]:
    return client.query(load("reprice_minutes"), wanted.parameters(wanted.since, wanted.until))


def _spans(client: ClickHouse, wanted: Wanted) -> Iterator[tuple[datetime, datetime]]:
    """Yield spans of whole minutes with about as many calls as a slice has."""
    begin, held = wanted.since, 0
    for row in _minutes(client, wanted):
        minute, calls = row["minute"], row["calls"]
        minute = max(minute.astimezone(UTC), wanted.since)
        if held and held + calls > SLICE_ROWS:
            yield begin, minute
            begin, held = minute, 0
        held += calls
    if held:
        yield begin, wanted.until


def reprice(
    client: ClickHouse, wanted: Wanted, price: Price, send: Send | None, pace: "Pace", done: Callable[[int], None]
) -> tuple[Summary, Plan]:
    """Price the calls again; return what changes, and the last that was sent (`last_of`). Without `send` nothing is."""
    summary, last = Summary(), Plan()
    for one in _ahead(slices(client, wanted)):
        now, changed = repriced(one.rows, price)
        summary.add(one.rows, now, changed)
        if send is not None and changed.any():
            parts = parts_of(one.rows, now, changed)
            pace.wait(int(changed.sum()))
            send(parts)
            last = last_of(parts, last)
        done(one.rows.height)
    return summary, last


def _ahead(found: Iterator[Slice]) -> Iterator[Slice]:
    """Yield the same, the next one read while this one is sent."""
    with ThreadPoolExecutor(1, "slices") as reader:
        following = reader.submit(next, found, None)
        while (one := following.result()) is not None:
            following = reader.submit(next, found, None)
            yield one


def parts_of(was: pl.DataFrame, now: pl.DataFrame, changed: pl.Series | None = None) -> list[Part]:
    """Return the rows that change (None = all) and what replaces them, by organisation."""
    rows = was.select("org_id").with_row_index("at")
    found = (rows if changed is None else rows.filter(changed)).group_by("org_id", maintain_order=True).agg("at")
    return [Part(str(org), was[at], now[at]) for org, at in zip(found["org_id"], found["at"], strict=True)]


def last_of(parts: list[Part], before: Plan) -> Plan:
    """Return the last call that was sent of each organisation: when the ledger has these, it has all.

    What is of one organisation arrives in the order in which it was sent. `before`: the same of earlier slices.
    """
    orgs = {part.org_id for part in parts}
    ends = [row for part in parts for row in part.now[-1:].iter_rows(named=True)]
    kept = {key: row for key, row in before.revisions.items() if row["org_id"] not in orgs}
    return Plan(revisions=kept | {identity(row): row for row in ends})


class Pace:
    """Holds a rate of rows a second; None = as fast as it goes."""

    def __init__(self, rows_per_s: float | None) -> None:
        self._rate, self._due = rows_per_s, time.monotonic()

    def wait(self, rows: int) -> None:
        """Return when so many rows may go."""
        if self._rate is None:
            return
        now = time.monotonic()
        time.sleep(max(0.0, self._due - now))
        self._due = max(self._due, now) + rows / self._rate


@dataclass(frozen=True)
class Instead:
    """What last month's calls shall have been: another model, provider, tier, or share of input read from a cache."""

    models: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Our name of a model to (provider, model); "" keeps the provider."""
    tier: str = ""
    cache_share: float | None = None

    def apply(self, rows: pl.DataFrame) -> pl.DataFrame:
        """Return the rows as they would have been. Tokens are counted as they were."""
        provider, model = pl.col("provider"), pl.col("model_id")
        for name, (other_provider, other) in self.models.items():
            hit = pl.col("model_id") == name
            provider = pl.when(hit).then(pl.lit(other_provider or None)).otherwise(None).fill_null(provider)
            model = pl.when(hit).then(pl.lit(other)).otherwise(model)
        if self.models:
            hit = pl.col("model_id").is_in(list(self.models))
            moved = {name: pl.when(hit).then(pl.lit("")).otherwise(pl.col(name)) for name in ("api_host", "deployment")}
            named = {name: pl.when(hit).then(model).otherwise(pl.col(name)) for name in ("model_sent", "model_used")}
            rows = rows.with_columns(provider=provider, **moved, **named)
        if self.tier == "batch":
            rows = rows.with_columns(processing=pl.lit("BATCH", PRICED_DTYPES["processing"]))
        elif self.tier:
            rows = rows.with_columns(service_tier=pl.lit(self.tier), processing=pl.lit("REALTIME"))
        if self.cache_share is not None:
            read = (pl.col("input_tokens") * self.cache_share).floor().cast(pl.Int64)
            rows = rows.with_columns(cache_read_tokens=read, cache_write_tokens=0, cache_write_1h_tokens=0)
        return rows.select(pl.col(name).cast(kind) for name, kind in PRICED_DTYPES.items())


def what_if(client: ClickHouse, wanted: Wanted, price: Price, instead: Instead, done: Callable[[int], None]) -> Summary:
    """Price the calls as they would have been; nothing is sent."""
    summary = Summary()
    for one in slices(client, wanted):
        now, changed = repriced(instead.apply(one.rows), price, one.rows)
        summary.add(one.rows, now, changed)
        done(one.rows.height)
    return summary
