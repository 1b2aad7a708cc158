"""WATCH's fold row by row, from the rules as they are written down: the definition that the vectorised one is held to.

Kept apart on purpose: it shares no code with `streams.rules.fold`, `landmarks`, `repair` and `snapshot`.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from types import SimpleNamespace
from typing import Any

from tests.simulation.rows import Row
from tollmeter.schemas.alert import Alert, alert_id
from tollmeter.schemas.control import ControlRecord, PolicyDelete, PolicySet, Round, Tick
from tollmeter.schemas.policy import Policy
from tollmeter.schemas.priced import FORMAT_VERSION, H_FORMAT, H_KIND, H_REPAIR

LEVELS = ("minute", "hour", "day", "month")
SLICE_US = 600_000_000
LANDMARK_EVERY = 64
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
    base: int = 0
    log_id: str = ""
    high: dict[int, int] = field(default_factory=dict)
    clocks: dict[int, int] = field(default_factory=dict)
    remember_from_us: int = 0
    seen: dict[int, set[tuple[int, str, str]]] = field(default_factory=dict)
    cells: dict[Key, Cell] = field(default_factory=dict)
    policies: dict[str, Policy] = field(default_factory=dict)
    changed: dict[str, bool] = field(default_factory=dict)
    deferred: dict[tuple[str, int], int] = field(default_factory=dict)
    repaired: dict[str, tuple[str, int]] = field(default_factory=dict)
    accepted: int = 0
    newest_stamp: int = -1

    def cell(self, key: Key) -> Cell:
        found = self.cells.get(key)
        if found is None:
            found = self.cells[key] = Cell()
        return found

    def watermark_ms(self) -> int | None:
        return min(self.clocks.values()) if len(self.clocks) >= self.sources else None


def fold(state: RowState, records: Sequence[Any], on_landmark: Callable[[RowState], None] | None) -> list[Alert]:
    """Fold records of usage.priced in offset order; return the alerts they cause."""
    alerts: list[Alert] = []
    for record in records:
        if state.halted or record.offset <= state.applied:
            continue
        headers = dict(record.headers)
        if int(headers[H_FORMAT]) > FORMAT_VERSION:
            state.halted = "newer"
            continue
        state.applied = record.offset
        kind = headers[H_KIND]
        found: list[Alert] = []
        if kind == b"rows":
            for row in record.value:
                found += _row(state, row, record.offset)
        elif kind == b"tick":
            for source, now_ms in Tick.model_validate_json(record.value).clocks.items():
                state.clocks[source] = max(now_ms, state.clocks.get(source, 0))
        elif kind == b"control":
            found += _control(state, ControlRecord.model_validate_json(record.value).body, record)
        elif kind == b"repair":
            found += _repair(state, Round.model_validate_json(headers[H_REPAIR]), record)
        if kind == b"tick" or record.offset % LANDMARK_EVERY == LANDMARK_EVERY - 1:
            _landmark(state)
            if on_landmark is not None:
                on_landmark(state)
        if record.offset > state.newest_stamp:
            alerts += found
    return alerts


def _row(state: RowState, row: Row, offset: int) -> list[Alert]:
    source = row.src_partition
    if row.src_offset <= state.high.get(source, -1):
        return []
    state.high[source] = row.src_offset
    state.accepted += 1
    clock = state.clocks[source] = max(state.clocks.get(source, 0), row.received_ms)
    late = row.charged_us < (clock - state.horizon_s * 1000) * 1000
    if row.event_us >= state.remember_from_us:
        if row.identity in state.seen.setdefault(row.event_us // SLICE_US, set()):
            return []
        state.seen[row.event_us // SLICE_US].add(row.identity)
    else:
        late = True
    if late:
        state.deferred[row.org, row.charged_us // 3_600_000_000] = offset
        return []
    alerts = []
    for level in LEVELS:
        bucket = bucket_at(level, row.charged_us // 1_000_000)
        for org, kind, name in scopes_of(row):
            key = (level, bucket, org, kind, name)
            cell = state.cell(key)
            if offset <= cell.stamp:
                continue
            before = cell.cost_nano
            cell.calls += 1
            cell.cost_nano += row.cost_nano
            cell.dirty = True
            alerts += _crossed(state, key, before, cell.cost_nano, row.received_ms)
    return alerts


def _limits(policy: Policy, level: str) -> Iterable[int]:
    micro = {"day": policy.daily_limit_micro, "month": policy.monthly_limit_micro}.get(level)
    return [] if micro is None else [micro * 1000]


def _crossed(state: RowState, key: Key, before: int, after: int, at_ms: int) -> list[Alert]:
    level, bucket, org, kind, name = key
    return [
        budget(policy, level, limit, bucket, pct, at_ms)
        for policy in state.policies.values()
        if (policy.org_id, policy.scope, policy.name) == (org, kind, name)
        for limit in _limits(policy, level)
        for pct in policy.thresholds
        if before * 100 < pct * limit <= after * 100
    ]


def budget(policy: Policy, level: str, limit: int, bucket: int, pct: int, at_ms: int) -> Alert:
    """Return the alert of a crossed threshold."""
    period = f"{EPOCH + timedelta(seconds=start_s(level, bucket)):%Y-%m-%d}"[: 10 if level == "day" else 7]
    return Alert(
        id=alert_id("budget", policy.policy_id, level, str(limit), period, str(pct)), kind="budget", severity="info",
        org_id=policy.org_id, scope=policy.scope, name=policy.name, period=period,
        received_at=EPOCH + timedelta(milliseconds=at_ms), text="",
        facts={"policy_id": policy.policy_id, "threshold_pct": pct, "limit_nano": limit, "window": level},
    )  # fmt: skip


def _control(state: RowState, body: Any, record: Any) -> list[Alert]:
    if isinstance(body, PolicyDelete):
        state.policies.pop(body.policy_id, None)
        state.changed[body.policy_id] = False
    if not isinstance(body, PolicySet):
        return []
    policy = body.policy
    before = state.policies.get(policy.policy_id)
    state.policies[policy.policy_id] = policy
    state.changed[policy.policy_id] = True
    alerts = []
    for level in ("day", "month"):
        bucket = bucket_at(level, record.timestamp // 1000)
        cell = state.cells.get((level, bucket, policy.org_id, policy.scope, policy.name))
        if cell is not None:
            alerts += [
                budget(policy, level, limit, bucket, pct, record.timestamp)
                for limit in _limits(policy, level)
                for pct in policy.thresholds
                if pct * limit <= cell.cost_nano * 100 and not _was_over(before, level, pct, cell.cost_nano)
            ]
    return alerts


def _was_over(before: Policy | None, level: str, pct: int, cost_nano: int) -> bool:
    """Tell whether an edge was crossed under the limit that held before: it alerts nobody again."""
    if before is None or pct not in before.thresholds:
        return False
    return any(pct * limit <= cost_nano * 100 for limit in _limits(before, level))


def _repair(state: RowState, round_: Round, record: Any) -> list[Alert]:
    last_id, last_offset = state.repaired.get(round_.org_id, ("", -1))
    if round_.id != last_id and round_.base < last_offset:
        return []
    state.repaired[round_.org_id] = (round_.id, record.offset)
    for hour in round_.hours:
        if state.deferred.get((round_.org_id, hour), round_.base + 1) <= round_.base:
            del state.deferred[round_.org_id, hour]
    alerts = []
    for key, absolute, calls, cost_nano in record.value:
        cell = state.cell(key)
        if record.offset <= cell.stamp:
            continue
        before = cell.cost_nano
        if absolute:
            cell.calls = cell.cost_nano = 0
        cell.calls += calls
        cell.cost_nano += cost_nano
        cell.dirty = True
        if start_s(key[0], key[1] + 1) * 1000 > record.timestamp:  # a period that is over is told of once, otherwise
            alerts += _crossed(state, key, before, cell.cost_nano, record.timestamp)
    return alerts


_KEPT_S = {"minute": 0, "hour": 24 * 3_600, "day": 7 * 86_400, "month": 0}


def _landmark(state: RowState) -> None:
    watermark = state.watermark_ms()
    if watermark is None:
        return
    state.remember_from_us = max(state.remember_from_us, (watermark - state.horizon_s * 1000) * 1000)
    for slice_ in [s for s in state.seen if (s + 1) * SLICE_US <= state.remember_from_us]:
        del state.seen[slice_]
    sealed_s = watermark // 1000 - state.horizon_s
    dirty = {key[:2] for key, cell in state.cells.items() if cell.dirty}
    for level, bucket in {key[:2] for key in state.cells} - dirty:
        if start_s(level, bucket + (2 if level == "month" else 1)) + _KEPT_S[level] <= sealed_s:
            for key in [key for key in state.cells if key[:2] == (level, bucket)]:
                del state.cells[key]


# checkpoints --------------------------------------------------------------------------------------------------------


def snapshot(state: RowState) -> Any:
    """Drain what changed; the fields that WATCH, its store and its repairs read."""
    cells = [(key, cell.calls, cell.cost_nano) for key, cell in sorted(state.cells.items()) if cell.dirty]
    for cell in state.cells.values():
        cell.dirty = False
    policies = tuple((name, state.policies[name] if kept else None) for name, kept in sorted(state.changed.items()))
    state.changed.clear()
    progress = {
        "applied": state.applied, "high": dict(state.high), "clocks": dict(state.clocks),
        "remember_from_us": state.remember_from_us, "accepted": state.accepted,
        "deferred": [[org, hour, offset] for (org, hour), offset in sorted(state.deferred.items())],
        "repaired": {org: list(last) for org, last in state.repaired.items()},
    }  # fmt: skip
    return SimpleNamespace(
        partition=state.partition,
        applied=state.applied,
        cells=cells,
        policies=policies,
        progress=progress,
        unsettled=(),
    )


def restore(state: RowState, progress: str, cells: Iterable[tuple[Key, int, int, int]], policies: list[Policy]) -> None:
    """Fill a new state from a checkpoint; cells are (key, calls, cost, stamp)."""
    data = json.loads(progress)
    state.applied, state.accepted = data["applied"], data["accepted"]
    state.high = {int(source): offset for source, offset in data["high"].items()}
    state.clocks = {int(source): clock for source, clock in data["clocks"].items()}
    state.remember_from_us = data["remember_from_us"]
    state.deferred = {(org, hour): offset for org, hour, offset in data["deferred"]}
    state.repaired = {org: (name, offset) for org, (name, offset) in data["repaired"].items()}
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
        if record.offset <= state.applied and dict(record.headers)[H_KIND] == b"rows":
            for row in record.value:
                if row.event_us >= state.remember_from_us:
                    state.seen.setdefault(row.event_us // SLICE_US, set()).add(row.identity)
