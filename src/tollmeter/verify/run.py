"""The whole check: wait for the line, read the log, ask ClickHouse, count each side by itself, name what differs."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl

from tollmeter.settings import Settings
from tollmeter.sinks.clickhouse import ClickHouse
from tollmeter.verify import ledger
from tollmeter.verify.count import (
    Difference,
    LogCounts,
    compare,
    conflicts,
    count,
    expected_ledger,
    first_deliveries,
    in_range,
    source_gaps,
)
from tollmeter.verify.log import read_rejected, read_targets
from tollmeter.verify.position import Position, position

SLACK_S = 15.0
IDS_ASKED = 10_000

Start = Callable[[int], Callable[[int], None]]
"""Told how many records there are to read; returns what hears of progress."""


@dataclass
class Verdict:
    """The counts and what differs. records = accepted + rejected, accepted = distinct + resends, distinct = ledger."""

    records: int = 0
    accepted: int = 0
    rejected: int = 0
    distinct: int = 0
    resends: int = 0
    ledger: int = 0
    differences: list[Difference] = field(default_factory=list)
    windows_compared: int = 0
    rollup_compared: int = 0
    cost_nano: int = 0
    """Sum over the ledger rows in question; unknown costs left out."""

    def document(self) -> dict[str, Any]:
        """Return the counts as JSON carries them."""
        names = ("records", "accepted", "rejected", "distinct", "resends", "ledger")
        return {**{name: getattr(self, name) for name in names}, "differences": [asdict(d) for d in self.differences]}


async def verify(settings: Settings, client: ClickHouse, wait_s: float, start: Start) -> Verdict:
    """Compare the log as it stands now with ClickHouse. Raises `LogUnreadableError`, `Unavailable`.

    What the logs no longer hold is left out on both sides: counted are source records from the oldest on whose priced
    rows are still kept.
    """
    at = await position(settings, wait_s)
    begin = {**at.events_begin}
    for number, first in (await asyncio.to_thread(ledger.log_start, client, at.priced_begin)).items():
        begin[number] = max(begin.get(number, 0), first)
    verdict = Verdict(records=sum(max(0, end - begin[number]) for number, end in at.events_end.items()))
    verdict.differences += _waiting(at)
    rejected, refused = await read_rejected(settings, at)
    verdict.rejected = sum(
        begin[n] <= offset < end for n, end in at.price_done.items() for offset in rejected.get(n, ())
    )
    advance = start(sum(end - at.priced_begin[number] for number, end in at.priced_end.items()))
    coordinates = []
    async for number, rows in read_targets(settings, at, advance):
        ours = first_deliveries(in_range(rows, begin, at.price_done))
        coordinates.append(ours.select("src_partition", "src_offset"))
        await asyncio.to_thread(_target, verdict, client, number, ours, _Bounds(begin, at, refused))
    verdict.differences += source_gaps(pl.concat(coordinates), rejected, begin, at.price_done)
    await asyncio.to_thread(_clickhouse, verdict, settings, client, begin, at)
    verdict.differences += _sums(verdict, at)
    return verdict


@dataclass(frozen=True, slots=True)
class _Bounds:
    begin: Mapping[int, int]
    at: Position
    refused: Mapping[int, set[int]]


def _target(verdict: Verdict, client: ClickHouse, number: int, rows: pl.DataFrame, bounds: _Bounds) -> None:
    """Count one partition of usage.priced and compare it with its rows in the ledger."""
    counts = count(rows)
    where = f"usage.priced partition {number}"
    done = bounds.at.ledger_done[number]
    stored = in_range(ledger.rows_of(client, number, done), bounds.begin, bounds.at.price_done)
    expected = expected_ledger(rows.filter(pl.col("priced_offset") < done))
    stored = pl.concat([stored, _older(client, expected, stored, bounds.begin)])
    verdict.accepted += counts.accepted
    verdict.distinct += counts.distinct
    verdict.resends += counts.resends
    verdict.ledger += stored.height
    verdict.cost_nano += int(stored["cost_nano"].sum())
    verdict.differences += conflicts(rows, where) + compare(expected, stored, bounds.refused, where)
    verdict.differences += _identity("accepted = distinct + resends", where, counts)


def _older(client: ClickHouse, expected: pl.DataFrame, stored: pl.DataFrame, begin: Mapping[int, int]) -> pl.DataFrame:
    """Return ledger rows of events that were first delivered before the log's present beginning, and resent since."""
    if not any(begin.values()):
        return stored.clear()
    ids = expected.join(stored, on=["event_time", "org_id", "event_id"], how="anti")["event_id"].head(IDS_ASKED)
    if not len(ids):
        return stored.clear()
    found = ledger.by_id(client, ids.to_list())
    bounds = pl.col("src_partition").replace_strict(dict(begin), default=0, return_dtype=pl.Int64)
    return found.filter(pl.col("src_offset") < bounds)


def _identity(name: str, where: str, counts: LogCounts) -> list[Difference]:
    off = counts.accepted - counts.distinct - counts.resends
    return [Difference(name, where, abs(off), str(counts))] if off else []


def _waiting(at: Position) -> list[Difference]:
    texts = {"price": "records of usage.events not priced yet", "ledger": "records of usage.priced not stored yet"}
    return [
        Difference(f"waiting_for_{stage}", "the line", at.waiting(stage), f"{text}: is the {stage} worker running?")
        for stage, text in texts.items() if at.waiting(stage)
    ]  # fmt: skip


def _clickhouse(
    verdict: Verdict, settings: Settings, client: ClickHouse, begin: Mapping[int, int], at: Position
) -> None:
    if not at.waiting("ledger"):
        verdict.differences += ledger.coverage_gaps(client, begin, at.price_done)
    verdict.windows_compared, found = ledger.windows(client, settings.horizon_s)
    verdict.differences += found
    oldest = datetime.now(UTC) - timedelta(days=settings.retention_events_days / 2)
    verdict.rollup_compared, found = ledger.rollup(client, settings.clickhouse_timeout_s + SLACK_S, oldest)
    verdict.differences += found


def _sums(verdict: Verdict, at: Position) -> list[Difference]:
    """Name the identities that do not hold between the totals, when nothing is still waiting."""
    found = []
    left, right = verdict.records - at.waiting("price"), verdict.accepted + verdict.rejected
    if left != right:
        found.append(Difference("records = accepted + rejected", "all", abs(left - right), f"{left} and {right}"))
    if not at.waiting("ledger") and verdict.distinct != verdict.ledger:
        text = f"{verdict.distinct} and {verdict.ledger}"
        found.append(Difference("distinct = ledger", "all", abs(verdict.distinct - verdict.ledger), text))
    return found
