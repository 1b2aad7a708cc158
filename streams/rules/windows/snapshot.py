"""A checkpoint of a partition's state as plain data: changed cells with their stamp, policies, and one progress record.

Written in that order; whatever part of it is missing after a crash is completed by folding the log again, because no
cell takes a record at or below its own stamp.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from tollmeter.schemas.policy import Member, Policy
from tollmeter.schemas.progress import Progress
from tollmeter.streams.rules.windows.backfill import Backfill, backfills
from tollmeter.streams.rules.windows.profile_rows import Drained, as_rows, drain, put_back
from tollmeter.streams.rules.windows.state import COUNTERS, State
from tollmeter.streams.rules.windows.totals import COLUMNS, Matrix, Vector, bucket_at, bucket_start_s

CELL_SCHEMA: dict[str, pl.DataType | type[pl.DataType]] = {
    "level": pl.String,
    "bucket": pl.Datetime("ms", "UTC"),
    "org_id": pl.String,
    "scope": pl.String,
    "name": pl.String,
    "priced_partition": pl.UInt16,
    "stamp": pl.UInt64,
    **dict.fromkeys(COLUMNS, pl.Int64),
}


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What changed since the last snapshot, as of `applied`. `cells` has the columns of CELL_SCHEMA."""

    partition: int
    applied: int
    cells: pl.DataFrame
    policies: tuple[tuple[str, Policy | Member | None], ...]
    """Policies, and members under "member:<id>"; None = deleted."""
    progress: Progress
    written: tuple[tuple[str, int, Vector, Matrix], ...]
    """(level, bucket, scope numbers, values) of the cells, to put them back should the write be given up."""
    profiles: pl.DataFrame
    """Changed profiles, with the columns of PROFILE_SCHEMA."""
    drained: tuple[Drained, ...]
    """The same by scope number, to put them back."""
    unsettled: tuple[Backfill, ...] = ()


def snapshot(state: State) -> Snapshot:
    """Drain what changed into a snapshot; the state counts it as saved, so a failed write must be retried or undone."""
    frames, written = [], []
    for level, buckets in sorted(state.levels.items()):
        for bucket, cells in sorted(buckets.items()):
            scopes, values = cells.drain_dirty()
            if scopes.size:
                frames.append(_frame(state, level, bucket, scopes, values))
                written.append((level, bucket, scopes, values))
    policies = tuple(
        (policy_id, state.budgets.document(policy_id) if kept else None)
        for policy_id, kept in sorted(state.changed_policies.items())
    )
    state.changed_policies.clear()
    cells_frame = pl.concat(frames) if frames else pl.DataFrame(schema=CELL_SCHEMA)
    drained = drain(state)
    return Snapshot(
        partition=state.partition,
        applied=state.applied,
        cells=cells_frame,
        policies=policies,
        progress=_progress(state),
        written=tuple(written),
        profiles=as_rows(state, drained),
        drained=drained,
        unsettled=backfills(state),
    )


def _frame(state: State, level: str, bucket: int, scopes: Vector, values: Matrix) -> pl.DataFrame:
    names = state.scopes.names
    chosen = [names[number] for number in scopes.tolist()]
    height = len(chosen)
    data = {
        "level": [level] * height,
        "bucket": np.full(height, bucket_start_s(level, bucket) * 1000, dtype=np.int64),
        "org_id": [org for org, _, _ in chosen],
        "scope": [kind for _, kind, _ in chosen],
        "name": [name for _, _, name in chosen],
        "priced_partition": np.full(height, state.partition, dtype=np.uint16),
        "stamp": np.full(height, max(state.applied, 0), dtype=np.uint64),
        **{column: values[:, position] for position, column in enumerate(COLUMNS)},
    }
    return (
        pl.DataFrame(data)
        .cast({"bucket": pl.Datetime("ms")})
        .with_columns(pl.col("bucket").dt.replace_time_zone("UTC"))
    )


def _progress(state: State) -> Progress:
    return Progress(
        applied=state.applied,
        base=state.base,
        log_id=state.log_id,
        epochs=tuple(state.epochs),
        high=state.high,
        clocks=state.clocks,
        watermark_ms=state.watermark_ms(),
        closed_minute=state.closed_minute,
        closed_hour=state.closed_hour,
        touched=tuple(sorted(state.touched)),
        counters=state.counters,
        deferred=tuple((org, hour, offset) for (org, hour), offset in sorted(state.deferred.items())),
        quiet_hours=tuple(sorted(state.quiet_hours)),
        unread=tuple(state.unread),
        unsettled=state.unsettled,
        repaired=state.repaired,
        raised=state.raised,
        remember_from_us=state.remember_from_us,
        doubles_from_us=state.doubles_from_us,
        doubled=tuple(sorted(state.doubled)),
    )


def restore(state: State, progress: Progress, cells: pl.DataFrame, policies: Sequence[Policy | Member]) -> None:
    """Fill a new state from a checkpoint: its progress, cells as in CELL_SCHEMA, live policies and members."""
    state.applied, state.base, state.log_id = progress.applied, progress.base, progress.log_id
    state.epochs, state.high = list(progress.epochs), dict(progress.high)
    for source, clock in progress.clocks.items():
        state.move_clock(source, clock)
    state.closed_minute, state.closed_hour = progress.closed_minute, progress.closed_hour
    state.touched = set(progress.touched)
    state.counters = {name: progress.counters.get(name, 0) for name in COUNTERS}
    state.raised = dict(progress.raised)
    state.deferred = {(org, hour): offset for org, hour, offset in progress.deferred}
    state.quiet_hours = set(progress.quiet_hours)
    state.unread, state.unsettled = list(progress.unread), dict(progress.unsettled)
    state.repaired = dict(progress.repaired)
    state.remember_from_us = progress.remember_from_us
    state.doubles_from_us, state.doubled = progress.doubles_from_us, set(progress.doubled)
    state.lost_to = state.base - 1  # of the log before this one
    for (level, start), part in cells.group_by(["level", "bucket"], maintain_order=True):
        bucket = bucket_at(str(level), int(start.timestamp()))
        numbers = [state.scopes.number(scope) for scope in part.select("org_id", "scope", "name").iter_rows()]
        state.cells(str(level), bucket).load(
            np.array(numbers, dtype=np.int64),
            np.ascontiguousarray(part.select(COLUMNS).to_numpy(), dtype=np.int64),
            part["stamp"].cast(pl.Int64).to_numpy(),
        )
    state.budgets.restore(policies, max(state.clocks.values(), default=0))
    state.to_publish.update(state.budgets.scopes)


def undo(state: State, failed: Snapshot) -> None:
    """Count a snapshot as unsaved again: its write was given up. Sealed buckets of it may be forgotten by now."""
    begin = 0
    for level, bucket, scopes, values in failed.written:
        names = failed.cells[begin : begin + scopes.size].select("org_id", "scope", "name")
        numbers = [state.scopes.number(scope) for scope in names.iter_rows()]  # one may have become another's since
        state.cells(level, bucket).put_back(np.array(numbers, dtype=np.int64), values)
        begin += scopes.size
    put_back(state, failed.drained)
    state.changed_policies = {policy_id: policy is not None for policy_id, policy in failed.policies} | (
        state.changed_policies
    )
