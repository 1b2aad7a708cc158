"""One's own history through WATCH's fold, in the order in which calls were made: what these rules find in it.

A call counts as received when it was made, so imports and drained spools are judged as if they had come in time. Open
buckets are judged once a minute of the history; WATCH itself does so each second. Nothing is written.
"""

import io
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime, timedelta

import numpy as np
import polars as pl

from tollmeter.schemas.alert import Alert
from tollmeter.schemas.policy import SCOPE_COLUMNS, Member, Policy
from tollmeter.sinks.clickhouse.client import ClickHouse
from tollmeter.sinks.clickhouse.queries import load, moment
from tollmeter.streams.rules.windows.barriers import barrier, move_clocks
from tollmeter.streams.rules.windows.controls import fold_member, fold_policy
from tollmeter.streams.rules.windows.fold import COLUMNS_READ, fold_rows
from tollmeter.streams.rules.windows.snapshot import snapshot
from tollmeter.streams.rules.windows.state import State, WatchRules

PAGE = timedelta(hours=1)
MINUTE_US = 60_000_000


def pages(ledger: ClickHouse, since: datetime, until: datetime) -> Iterator[pl.DataFrame]:
    """Yield the calls of a span of time, an hour at once. Raises `Unavailable`, `Rejected`."""
    start = since
    while start < until:
        end = min(until, start + PAGE)
        answer = ledger.arrow(load("history_rows"), {"since": moment(start), "until": moment(end)})
        yield pl.read_ipc_stream(io.BytesIO(answer)).rename({"id": "event_id"})
        start = end


class History:
    """The fold of a history, from its beginning on, with the policies and members that are given."""

    def __init__(
        self, rules: WatchRules, begin: datetime, policies: Iterable[Policy] = (), members: Iterable[Member] = ()
    ) -> None:
        self._state, self._offset, self._row = State(0, rules), 0, 0
        begin_ms = int(begin.timestamp() * 1_000)
        for member in members:
            fold_member(self._state, member, self._offset, begin_ms)
            self._offset += 1
        for policy in policies:
            if policy.scope in SCOPE_COLUMNS:  # of tags, sessions and runs the ledger's rows are not read
                fold_policy(self._state, policy, self._offset, begin_ms)
                self._offset += 1

    def fold(self, rows: pl.DataFrame, advance: Callable[[int], None]) -> list[Alert]:
        """Return what is found in the next calls, in order of time. `advance` hears of calls that are done."""
        found: list[Alert] = []
        if not rows.height:
            return found
        for minute in self._minutes(rows):
            found += self._fold_minute(minute)
            advance(minute.height)
        snapshot(self._state)  # what a checkpoint holds may be forgotten once nobody looks back at it
        return sorted(found, key=lambda alert: alert.received_at)  # of one instant as found: keys first

    def _minutes(self, rows: pl.DataFrame) -> Iterator[pl.DataFrame]:
        made = self._placed(rows)
        minutes = made["event_time"].cast(pl.Int64).to_numpy() // MINUTE_US
        starts = [0, *(np.flatnonzero(np.diff(minutes)) + 1).tolist()]
        for start, end in zip(starts, [*starts[1:], made.height], strict=True):
            yield made[start:end]

    def _placed(self, rows: pl.DataFrame) -> pl.DataFrame:
        """Return rows with what WATCH reads of their way here: one source, received when they were made."""
        made_us = pl.col("event_time").cast(pl.Datetime("us", "UTC"))
        received_ms = ((made_us.cast(pl.Int64) + 999) // 1_000).cast(pl.Datetime("ms", "UTC"))
        placed = rows.with_columns(
            made_us.alias("event_time"),
            received_ms.alias("received_at"),
            pl.lit(0, pl.Int64).alias("src_partition"),
            pl.int_range(self._row, self._row + rows.height, dtype=pl.Int64, eager=True).alias("src_offset"),
            pl.lit("").alias("flags"),
        )
        self._row += rows.height
        return placed.select(COLUMNS_READ)

    def _fold_minute(self, rows: pl.DataFrame) -> list[Alert]:
        found = fold_rows(self._state, rows, self._offset)
        minute = int(rows["event_time"].cast(pl.Int64)[0]) // MINUTE_US
        move_clocks(self._state, {0: (minute + 1) * 60_000 - 1}, self._offset + 1)
        self._offset += 2
        return found + barrier(self._state, caught_up=True)
