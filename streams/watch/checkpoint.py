"""WATCH's checkpoints in ClickHouse: cells and profiles, then policies, then progress; for each the highest stamp wins.

Written in this order, so that a progress record never claims what is not there. Methods block and raise `Unavailable`.
"""

import asyncio
import io
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

import polars as pl

from tollmeter.schemas.event import EPOCH
from tollmeter.schemas.policy import Member, Policy
from tollmeter.schemas.progress import Progress
from tollmeter.settings import Settings
from tollmeter.sinks.clickhouse.client import ClickHouse, connect
from tollmeter.sinks.clickhouse.queries import load
from tollmeter.streams.rules.limits.bindings import MEMBER
from tollmeter.streams.rules.windows.profile_rows import PROFILE_SCHEMA
from tollmeter.streams.rules.windows.snapshot import CELL_SCHEMA, Snapshot
from tollmeter.streams.rules.windows.state import HISTORY_DAYS, HISTORY_HOURS, State

EXTRA_DAYS = 64
"""How far back windows of other zones and of 15 minutes are kept in memory: two months, or the longest rolling sum."""
_POLICY_COLUMNS = ("priced_partition", "policy_id", "stamp", "deleted", "policy")
_PROGRESS_COLUMNS = ("priced_partition", "applied", "stamp", "state")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What was saved of a partition: progress, cells and profiles with the columns of their schemas, live rules."""

    progress: Progress
    cells: pl.DataFrame
    profiles: pl.DataFrame
    policies: list[Policy | Member]


@dataclass(slots=True)
class Saving:
    """A snapshot on its way into ClickHouse, and the state that it is of."""

    state: State
    taken: Snapshot
    task: asyncio.Task[None]


QUIET_S = 30.0
"""Between checkpoints that would hold nothing but where the clocks stand: a restart folds those ticks again."""


class Pace:
    """When a partition is saved again; seldom while only ticks come and nothing is left to repair."""

    def __init__(self, every_s: float) -> None:
        self._every_s = every_s
        self._saved_at: dict[int, float] = {}
        self._moved: set[int] = set()

    def moved(self, partition: int) -> None:
        """More than ticks was folded, or there is work left."""
        self._moved.add(partition)

    def due(self, partition: int, now: float) -> bool:
        """Tell whether to save now, in monotonic seconds; then the next time counts from here."""
        pause_s = self._every_s if partition in self._moved else max(self._every_s, QUIET_S)
        if now < self._saved_at.get(partition, float("-inf")) + pause_s:
            return False
        self._saved_at[partition] = now
        self._moved.discard(partition)
        return True


class CheckpointStore:
    """Loads and saves the checkpoints of one line."""

    def __init__(self, settings: Settings, connect: Callable[[Settings], ClickHouse] = connect) -> None:
        self._settings, self._connect = settings, connect
        self._client: ClickHouse | None = None

    def _connected(self) -> ClickHouse:
        if self._client is None:
            self._client = self._connect(self._settings)
        return self._client

    def load(self, partition: int) -> Checkpoint | None:
        """Return the checkpoint of a partition, None when there is none yet."""
        client = self._connected()
        found = client.query(load("watch_progress"), {"partition": partition})
        if not found:
            return None
        progress = Progress.read(str(found[0]["state"]))
        policies = client.query(load("watch_policies"), {"partition": partition})
        since = EPOCH + timedelta(milliseconds=progress.watermark_ms or 0)
        spans = _windows_in_memory(since, self._settings.horizon_s)
        wanted = {"partition": partition, "applied": max(progress.applied, 0), **spans}
        cells = pl.read_ipc_stream(io.BytesIO(client.arrow(load("watch_cells"), wanted)))
        profiles = pl.read_ipc_stream(io.BytesIO(client.arrow(load("watch_profiles"), {"partition": partition})))
        return Checkpoint(
            progress,
            cells.select(pl.col(name).cast(kind) for name, kind in CELL_SCHEMA.items()),
            profiles.with_columns(pl.col("state").str.decode("base64")).select(
                pl.col(name).cast(kind) for name, kind in PROFILE_SCHEMA.items()
            ),
            [_rule(str(row["policy_id"]), row["policy"]) for row in policies],
        )

    def hours_at(self, partition: int, first: int, last: int) -> list[tuple[str, int]]:
        """Return the organisations and hours of the ledger's rows that stood at these offsets of a partition."""
        wanted = {"partition": partition, "first": max(0, first), "last": last}
        return [(row["org_id"], row["hour"]) for row in self._connected().query(load("gap_hours"), wanted)]

    @property
    def writes(self) -> tuple[Callable[[Snapshot], None], ...]:
        """The writes that save a snapshot, in their order; each may be repeated, and may be the last, without harm."""
        return self._write_cells, self._write_profiles, self._write_policies, self._write_progress

    def _write_cells(self, taken: Snapshot) -> None:
        self._insert("usage_windows", taken.cells)

    def _write_profiles(self, taken: Snapshot) -> None:
        self._insert("watch_profiles", taken.profiles)

    def _insert(self, table: str, rows: pl.DataFrame) -> None:
        if rows.height:
            out = io.BytesIO()
            rows.write_ipc_stream(out, compression="lz4")
            self._connected().insert_arrow(table, out.getvalue(), rows.columns)

    def _write_policies(self, taken: Snapshot) -> None:
        stamp = max(taken.applied, 0)
        rows = [
            (taken.partition, policy_id, stamp, int(policy is None), policy.model_dump_json() if policy else "")
            for policy_id, policy in taken.policies
        ]
        self._connected().insert_rows("watch_policies", _POLICY_COLUMNS, rows)

    def _write_progress(self, taken: Snapshot) -> None:
        progress = (taken.partition, taken.applied, max(taken.applied, 0), taken.progress.text())
        self._connected().insert_rows("watch_progress", _PROGRESS_COLUMNS, [progress])


def _rule(key: str, document: str) -> Policy | Member:
    made: type[Policy] | type[Member] = Member if key.startswith(MEMBER) else Policy
    return made.model_validate_json(document)


def _windows_in_memory(watermark: datetime, horizon_s: int) -> dict[str, datetime]:
    """Return from when on a fold at this watermark needs the cells of each level."""
    open_from = (watermark - timedelta(seconds=horizon_s)).replace(second=0, microsecond=0)
    month = open_from.replace(day=1, hour=0, minute=0)
    return {
        "minutes_from": max(EPOCH, open_from),
        "hours_from": max(EPOCH, open_from.replace(minute=0) - timedelta(hours=HISTORY_HOURS + 1)),
        "days_from": max(EPOCH, open_from.replace(hour=0, minute=0) - timedelta(days=HISTORY_DAYS)),
        "extras_from": max(EPOCH, open_from - timedelta(days=EXTRA_DAYS)),
        "months_from": max(EPOCH, (month - timedelta(days=1)).replace(day=1)),
    }
