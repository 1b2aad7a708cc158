"""The state of the row-by-row fold, its checkpoints, and what becomes of it when a log has a gap or is made anew.

Kept apart on purpose: it shares no code with `streams.rules.state`, `snapshot` and `epochs`.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from types import SimpleNamespace
from typing import Any

import polars as pl

from tests.simulation.rows import Row
from tollmeter.schemas.control import Correction
from tollmeter.schemas.policy import Policy
from tollmeter.schemas.priced import H_CORRECTION, H_KIND
from tollmeter.schemas.progress import Progress

LEVELS = ("minute", "hour", "day", "month")
SLICE_US = 600_000_000
AHEAD_MS = 600_000
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
Key = tuple[str, int, str, str, str]
"""level, bucket, org, kind, name."""


@cache
def bucket_at(level: str, seconds: int) -> int:
    """Return the bucket of a level that holds an instant."""
    if level == "month":
        at = EPOCH + timedelta(seconds=seconds)
        return (at.year - 1970) * 12 + at.month - 1
    return seconds // {"minute": 60, "hour": 3_600, "day": 86_400}[level]


@cache
def start_s(level: str, bucket: int) -> int:
    """Return when a bucket begins."""
    if level == "month":
        return int(datetime(1970 + bucket // 12, bucket % 12 + 1, 1, tzinfo=UTC).timestamp())
    return bucket * {"minute": 60, "hour": 3_600, "day": 86_400}[level]


def scopes_of(row: Row) -> tuple[tuple[str, str, str], ...]:
    """Return the scopes that a row counts for."""
    named = (("org", ""), ("user", row.user), ("api_key", row.key))
    return tuple((row.org, kind, name) for kind, name in named if kind == "org" or name)


@dataclass(slots=True)
class Cell:
    calls: int = 0
    cost_nano: int = 0
    stamp: int = -1
    dirty: bool = False


@dataclass(slots=True)
class RowState:
    """The state of one partition; fields as in `streams.rules.state`."""

    partition: int
    sources: int
    horizon_s: int
    applied: int = -1
    halted: str = ""
    halted_at: int = -1
    passed: set[int] = field(default_factory=set)
    base: int = 0
    log_id: str = ""
    epochs: list[str] = field(default_factory=list)
    high: dict[int, int] = field(default_factory=dict)
    clocks: dict[int, int] = field(default_factory=dict)
    remember_from_us: int = 0
    seen: dict[int, set[tuple[Any, ...]]] = field(default_factory=dict)
    cells: dict[Key, Cell] = field(default_factory=dict)
    policies: dict[str, Policy] = field(default_factory=dict)
    changed: dict[str, bool] = field(default_factory=dict)
    deferred: dict[tuple[str, int], int] = field(default_factory=dict)
    unread: list[tuple[int, int]] = field(default_factory=list)
    repaired: dict[str, tuple[str, int]] = field(default_factory=dict)
    accepted: int = 0
    newest_stamp: int = -1
    now_ms: int = 0
    """The time that adjustments of limits are judged by."""
    lost_to: int = -1
    doubles_from_us: int = 0
    doubled: set[tuple[int, str, str]] = field(default_factory=set)
    """Rows whose id came first at another time, until their voiding is folded."""
    to_void: list[tuple[int, str, str]] = field(default_factory=list)

    def cell(self, key: Key) -> Cell:
        found = self.cells.get(key)
        if found is None:
            found = self.cells[key] = Cell()
        return found

    def move_clock(self, source: int, now_ms: int) -> int:
        """Return the time of a source partition, as far as anybody knows; only those of the layout are waited for."""
        time_ms = max(now_ms, self.clocks.get(source, 0))
        if source < self.sources:
            self.clocks[source] = time_ms
        return time_ms

    def watermark_ms(self) -> int | None:
        return min(self.clocks.values()) if len(self.clocks) >= self.sources else None


class RowProgress(Progress):
    """Progress of a row state, with a counter of its own."""

    accepted: int


def snapshot(state: RowState) -> Any:
    """Drain what changed; the fields that WATCH, its store and its repairs read."""
    changed = sorted(key for key, cell in state.cells.items() if cell.dirty)
    cells = [(key, state.cells[key].calls, state.cells[key].cost_nano) for key in changed]
    for key in changed:
        state.cells[key].dirty = False
    policies = tuple((name, state.policies[name] if kept else None) for name, kept in sorted(state.changed.items()))
    state.changed.clear()
    progress = RowProgress(
        applied=state.applied,
        base=state.base,
        log_id=state.log_id,
        epochs=tuple(state.epochs),
        unread=tuple(state.unread),
        high=state.high,
        clocks=state.clocks,
        watermark_ms=state.watermark_ms(),
        remember_from_us=state.remember_from_us,
        accepted=state.accepted,
        deferred=tuple((org, hour, offset) for (org, hour), offset in sorted(state.deferred.items())),
        repaired=state.repaired,
        doubles_from_us=state.doubles_from_us,
        doubled=tuple(sorted(state.doubled)),
    )
    return SimpleNamespace(
        partition=state.partition,
        applied=state.applied,
        cells=cells,
        policies=policies,
        progress=progress,
        profiles=pl.DataFrame(),
        unsettled=(),
    )


def restore(state: RowState, progress: str, cells: Iterable[tuple[Key, int, int, int]], policies: list[Policy]) -> None:
    """Fill a new state from a checkpoint; cells are (key, calls, cost, stamp)."""
    data = json.loads(progress)
    state.applied, state.accepted = data["applied"], data["accepted"]
    state.base, state.log_id, state.epochs = data["base"], data["log_id"], data["epochs"]
    state.unread = [(first, last) for first, last in data["unread"]]
    state.high = {int(source): offset for source, offset in data["high"].items()}
    state.clocks = {int(source): clock for source, clock in data["clocks"].items()}
    state.remember_from_us = data["remember_from_us"]
    state.now_ms = max(state.clocks.values(), default=0)
    state.deferred = {(org, hour): offset for org, hour, offset in data["deferred"]}
    state.repaired = {org: (name, offset) for org, (name, offset) in data["repaired"].items()}
    state.doubles_from_us, state.lost_to = data["doubles_from_us"], state.base - 1
    state.doubled = {(at_us, org, event_id) for at_us, org, event_id in data["doubled"]}
    for key, calls, cost_nano, stamp in cells:
        state.cells[key] = Cell(calls, cost_nano, stamp)
        state.newest_stamp = max(state.newest_stamp, stamp)
    state.policies = {policy.policy_id: policy for policy in policies}


def undo(state: RowState, failed: Any) -> None:
    """Count a snapshot as unsaved again."""
    for key, calls, cost_nano in failed.cells:
        if key not in state.cells:
            state.cells[key] = Cell(calls, cost_nano)
        state.cells[key].dirty = True
    state.changed = {name: policy is not None for name, policy in failed.policies} | state.changed


def remember(state: RowState, records: Sequence[Any]) -> None:
    """Rebuild the memory of ids from records of the log up to `applied`."""
    for record in records:
        if record.offset + state.base > state.applied:
            continue
        for identity in identities(record):
            if identity[0] >= state.remember_from_us:
                state.seen.setdefault(identity[0] // SLICE_US, set()).add(identity)


def identities(record: Any) -> list[tuple[Any, ...]]:
    """Return what a record brings that counts once: rows by identity, corrections by identity and revision."""
    headers = dict(record.headers)
    if headers[H_KIND] == b"rows":
        return [row.identity for row in record.value]
    if headers[H_KIND] != b"correction":
        return []
    correction = Correction.model_validate_json(headers[H_CORRECTION])
    was = correction.was
    revised = [(*row.identity, row.revision) for row in record.value[was:]]
    return revised if correction.doubled else [*revised, *(row.identity for row in record.value[2 * was :])]


# what is gone from a log -------------------------------------------------------------------------------------------


def renew(state: RowState, log_id: str) -> None:
    """Go on with a log made anew: offsets rise by 2^40, ids are forgotten, the open hours are made right later."""
    state.base = (max(state.applied, state.base) // 2**40 + 1) * 2**40
    state.applied = state.lost_to = state.base - 1
    state.log_id = log_id
    state.seen.clear()
    state.doubled.clear()
    missing(state, open_hours(state))


def forgotten(state: RowState, until_ms: int = 0) -> None:
    """Which of several times of an id came first is known of those alone that cannot have come by then."""
    known_ms = max([until_ms, *state.clocks.values()]) + AHEAD_MS
    state.doubles_from_us = max(state.doubles_from_us, known_ms * 1_000)


def open_hours(state: RowState) -> list[tuple[str, int]]:
    """Return the hours in which a resend may be counted twice once ids are forgotten."""
    return sorted(
        (org, bucket)
        for level, bucket, org, kind, _ in state.cells
        if level == "hour" and kind == "org" and (bucket + 1) * 3_600_000_000 > state.remember_from_us
    )


def missing(state: RowState, hours: list[tuple[str, int]]) -> None:
    """Have hours of organisations repaired from the ledger."""
    state.deferred.update(dict.fromkeys(hours, max(state.applied, 0)))
