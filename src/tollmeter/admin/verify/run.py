"""The whole check: wait for the line, read the log, ask ClickHouse, count each side by itself, name what differs."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import polars as pl

from tollmeter.admin.verify import ledger, rollups
from tollmeter.admin.verify.count import (
    IDENTITY,
    Difference,
    Differences,
    LogCounts,
    as_read,
    changed_contents,
    compare,
    corrected,
    count,
    expected_ledger,
    first_deliveries,
    ids,
    several_times,
)
from tollmeter.admin.verify.deep import recount
from tollmeter.admin.verify.live import check_windows
from tollmeter.admin.verify.log import SCHEMA, Letters, read_letters, read_rows, resolve
from tollmeter.admin.verify.position import Position, position
from tollmeter.admin.verify.sources import SourceMap
from tollmeter.admin.verify.spill import Spill
from tollmeter.admin.verify.verdict import Options, Verdict
from tollmeter.schemas.event import EPOCH
from tollmeter.schemas.priced import VOID
from tollmeter.settings import Settings
from tollmeter.sinks.clickhouse.client import ClickHouse

SLACK_S = 15.0
BUCKET_ROWS = 200_000
LISTED = 100
"""Ids with several times that are listed, and rows of each kind that one repair takes on."""

Start = Callable[[int], Callable[[int], None]]
"""Told how many records there are to read; returns what hears of progress."""


async def verify(settings: Settings, client: ClickHouse, options: Options, start: Start) -> Verdict:
    """Compare the log as it stands now with ClickHouse. Raises `LogUnreadableError`, `Unavailable`.

    What the logs no longer hold is left out on both sides: counted are source records from the oldest on whose priced
    rows are still kept, or from `since_s` on.
    """
    since = datetime.now(UTC) - timedelta(seconds=options.since_s) if options.since_s else None
    at = await position(settings, options.wait_s, since=since)
    begin = dict(at.since)
    for number, first in (await asyncio.to_thread(ledger.log_start, client, at.priced_begin)).items():
        begin[number] = max(begin.get(number, 0), first)
    with TemporaryDirectory(prefix="tollmeter-verify-") as folder:
        job = Job(settings, client, options, at, SourceMap(begin, at.price_done), Path(folder))
        await job.run(since, begin, start)
    return job.verdict


class Part(NamedTuple):
    """Some ids of one partition of usage.priced: rows of the source, those of corrections, and what the ledger has."""

    where: str
    rows: pl.DataFrame
    corrections: pl.DataFrame
    stored: pl.DataFrame


class Job:
    """One run over one position of the line."""

    def __init__(
        self, settings: Settings, client: ClickHouse, options: Options, at: Position, sources: SourceMap, folder: Path
    ) -> None:
        self._settings, self._client, self._options = settings, client, options
        self._at, self._sources = at, sources
        self._buckets = 1 + sources.records() // BUCKET_ROWS
        self._log = Spill(folder, "log", self._buckets, SCHEMA)
        self._ledger = Spill(folder, "ledger", self._buckets, ledger.LEDGER_SCHEMA)
        self._folder = folder
        self._found = Differences()
        self._counts = LogCounts()
        self.verdict = Verdict()

    async def run(self, since: datetime | None, begin: dict[int, int], start: Start) -> None:
        at, verdict = self._at, self.verdict
        advance = start(sum(end - at.priced_from[number] for number, end in at.priced_end.items()))
        letters = await read_letters(self._settings, at, self._sources)
        async for rows in read_rows(self._settings, at, advance):
            ours = self._sources.inside(rows)
            self._sources.accept(ours.filter(~pl.col("corrected")))
            self._log.add(ours)
        await resolve(self._settings, self._sources, advance)
        await asyncio.to_thread(self._spill_ledger, since)
        await asyncio.to_thread(self._compare, letters, begin)
        verdict.records = self._sources.records() + at.waiting("price")
        verdict.rejected = self._sources.rejected()
        verdict.accepted, verdict.distinct = self._counts.accepted, self._counts.distinct
        verdict.resends = self._counts.resends
        verdict.voided += verdict.corrected.voided
        self._found.add(self._sources.differences())
        await asyncio.to_thread(self._clickhouse, since)
        await self._windows()
        if self._options.deep:
            verdict.deep, found = await recount(
                self._settings, begin, at, letters.killers, self._folder, self._buckets, verdict, start
            )
            self._found.add(found)
        verdict.differences = [*_waiting(at), *self._found, *_sums(verdict, at)]

    def _spill_ledger(self, since: datetime | None) -> None:
        done = self._at.ledger_done
        known = pl.DataFrame(
            {"priced_partition": list(done), "done": list(done.values())},
            schema={"priced_partition": pl.UInt16, "done": pl.Int64},
        )
        arrived = since - timedelta(minutes=1) if since else EPOCH
        for page in ledger.pages(self._client):
            rows = self._sources.inside(ledger.rows_of(self._client, page, arrived))
            beyond = pl.col("priced_offset") >= pl.col("done")
            rows = rows.join(known, on="priced_partition").filter((pl.col("revision") > 0) | ~beyond).drop("done")
            self._ledger.add(rows)

    def _compare(self, letters: Letters, begin: dict[int, int]) -> None:
        refused, voids = letters.refused_frame(), ledger.voids(self._client)
        for bucket in range(self._buckets):
            log, stored = self._log.read(bucket), self._ledger.read(bucket)
            corrections = log.filter(pl.col("corrected"))
            rows, kept = [], []
            for number in self._at.priced_end:
                mine = pl.col("priced_partition") == number
                rows.append(first_deliveries(log.filter(mine & ~pl.col("corrected"))))
                part = Part(f"usage.priced partition {number}", rows[-1], corrections.filter(mine), stored.filter(mine))
                kept.append(self._target(part, self._at.ledger_done[number], refused, voids, begin))
            self.verdict.corrected += corrected(pl.concat(rows), corrections, pl.concat(kept))

    def _target(
        self, part: Part, done: int, refused: pl.DataFrame, voids: pl.DataFrame, begin: dict[int, int]
    ) -> pl.DataFrame:
        """Compare some ids of one partition of usage.priced with their rows in the ledger; return those rows."""
        verdict, where, rows = self.verdict, part.where, part.rows
        counts = count(rows)
        self._counts += counts
        expected = expected_ledger(pl.concat([rows, part.corrections]).filter(pl.col("priced_offset") < done))
        stored = as_read(part.stored, expected, part.stored["priced_offset"] >= done)
        stored = pl.concat([stored, self._older(expected, stored, begin)])
        compared = compare(expected, stored, refused, voids, where)
        counted = stored.filter(pl.col("status") != VOID)
        verdict.ledger += counted.height
        verdict.voided += compared.voided
        verdict.cost_nano += int(counted["cost_nano"].sum())
        for rows_, into in (
            (compared.missing, verdict.broken.missing),
            (compared.wrong, verdict.broken.wrong),
            (compared.back, verdict.broken.back),
        ):
            if rows_.height:
                into.append(rows_)
        self._found.add([*changed_contents(rows, where), *compared.differences, *_identity(where, counts)])
        gone = pl.concat([voids.select(IDENTITY), expected.filter(pl.col("status") == VOID).select(IDENTITY)])
        self._several_times(rows, gone, where)
        return stored

    def _several_times(self, rows: pl.DataFrame, gone: pl.DataFrame, where: str) -> None:
        """List ids that came at several times; where the ledger still counts more than one, that is a difference."""
        came = several_times(rows)
        if not came.height:
            return
        count = pl.col("counts").sum().alias("counted")
        counts = came.join(gone.unique().with_columns(counts=0), on=IDENTITY, how="left").fill_null(1)
        grouped = counts.group_by("org_id", "event_id", maintain_order=True).agg("event_time", "cost_nano", count)
        room = LISTED - len(self.verdict.several_times)
        self.verdict.several_times += [
            {
                "org_id": org,
                "event_id": event_id,
                "times": [time.isoformat() for time in times],
                "cost_nano": costs,
                "counted": counted,
            }
            for org, event_id, times, costs, counted in grouped.head(max(0, room)).rows()
        ]
        twice = several_times(came.join(gone, on=IDENTITY, how="anti"))
        if twice.height:
            self.verdict.broken.twice.append(twice)
            wrong = twice.unique(["org_id", "event_id"], maintain_order=True)
            detail = f"the same event_id at several times, each counted, for example {ids(wrong)}"
            self._found.add([Difference("id_with_several_times", where, wrong.height, detail)])

    def _older(self, expected: pl.DataFrame, stored: pl.DataFrame, begin: dict[int, int]) -> pl.DataFrame:
        """Return ledger rows of events that were first delivered before the part in question, and resent since."""
        if not any(begin.values()):
            return stored.clear()
        unknown = expected.join(stored, on=IDENTITY, how="anti")
        found = ledger.by_id(self._client, unknown["event_id"].to_list())
        bounds = pl.col("src_partition").replace_strict(begin, default=0, return_dtype=pl.Int64)
        older = found.filter(pl.col("src_offset") < bounds).join(unknown, on=IDENTITY, how="semi")
        return as_read(older.select(stored.columns), expected, older["revision"] > 0)

    def _clickhouse(self, since: datetime | None) -> None:
        settings, verdict = self._settings, self.verdict
        if not self._at.waiting("ledger"):
            self._found.add(ledger.coverage_gaps(self._client, self._sources))
        verdict.gaps = [
            {name: value.isoformat() if isinstance(value, datetime) else value for name, value in gap.items()}
            for gap in ledger.declared_gaps(self._client)
        ]
        oldest = datetime.now(UTC) - timedelta(days=settings.retention_events_days / 2)
        slack = settings.clickhouse_timeout_s + SLACK_S
        verdict.broken.rollup = rollups.check(self._client, slack, oldest, since or EPOCH)
        verdict.rollup_compared = verdict.broken.rollup.compared
        self._found.add(verdict.broken.rollup.differences)

    async def _windows(self) -> None:
        """Compare WATCH's totals, where LEDGER is beyond the checkpoint they belong to."""
        options = self._options
        found = await check_windows(self._settings, self._client, options.wait_s, options.windows_s)
        self.verdict.broken.windows, self.verdict.windows_compared = found, found.compared
        self._found.add(found.differences())


def _identity(where: str, counts: LogCounts) -> list[Difference]:
    off = counts.accepted - counts.distinct - counts.resends
    return [Difference("accepted = distinct + resends", where, abs(off), str(counts))] if off else []


def _waiting(at: Position) -> list[Difference]:
    texts = {"price": "records of usage.events not priced yet", "ledger": "records of usage.priced not stored yet"}
    return [
        Difference(f"waiting_for_{stage}", "the line", at.waiting(stage), f"{text}: is the {stage} worker running?")
        for stage, text in texts.items()
        if at.waiting(stage)
    ]


def _sums(verdict: Verdict, at: Position) -> list[Difference]:
    """Name the identities that do not hold between the totals, when nothing is still waiting."""
    found = []
    left, right = verdict.records - at.waiting("price"), verdict.accepted + verdict.rejected
    if left != right:
        found.append(Difference("records = accepted + rejected", "all", abs(left - right), f"{left} and {right}"))
    stored = verdict.ledger + verdict.voided
    if not at.waiting("ledger") and verdict.distinct != stored:
        text = f"{verdict.distinct} and {stored}"
        found.append(Difference("distinct = ledger", "all", abs(verdict.distinct - stored), text))
    return found
