"""WATCH's fold row by row, from the rules as they are written down: the definition that the vectorised one is held to.

Kept apart on purpose: it shares no code with `streams.rules.fold`, `barriers`, `repair` and `epochs`.
"""

from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta
from typing import Any

from tests.simulation.row_state import (
    AHEAD_MS,
    EPOCH,
    LEVELS,
    SLICE_US,
    Key,
    RowState,
    bucket_at,
    forgotten,
    scopes_of,
    start_s,
)
from tests.simulation.rows import Row
from tollmeter.schemas import topics
from tollmeter.schemas.alert import Alert, alert_id
from tollmeter.schemas.control import ControlRecord, Correction, PolicyDelete, PolicySet, Round, Tick
from tollmeter.schemas.policy import Policy
from tollmeter.schemas.priced import (
    DOUBLED_REVISION,
    FORMAT_VERSION,
    H_CORRECTION,
    H_FORMAT,
    H_KIND,
    H_REPAIR,
    H_SOURCE_ID,
)

BARRIER_EVERY = 64
SLACK_MS = 600_000

NEWEST_KNOWN = FORMAT_VERSION


def fold(state: RowState, records: Sequence[Any], on_barrier: Callable[[RowState], None] | None) -> list[Alert]:
    """Fold records of usage.priced in offset order; return the alerts they cause."""
    alerts: list[Alert] = []
    for record in records:
        offset = record.offset + state.base
        if state.halted or offset <= state.applied:
            continue
        headers = dict(record.headers)
        if int(headers[H_FORMAT]) > NEWEST_KNOWN:
            state.halted, state.halted_at = "newer", offset
            continue
        if state.lost_to >= max(state.applied, 0) and offset > state.lost_to:
            forgotten(state, record.timestamp + SLACK_MS)
        state.applied = offset
        kind = headers[H_KIND]
        found: list[Alert] = []
        if kind == b"rows":
            epoch, found = _source_epoch(state, headers.get(H_SOURCE_ID, b"").decode(), record.timestamp)
            for row in record.value:
                found += _row(state, row, offset, epoch)
        elif kind == b"tick":
            for source, now_ms in Tick.model_validate_json(record.value).clocks.items():
                state.move_clock(source, now_ms)
        elif kind == b"control":
            found += _control(state, ControlRecord.model_validate_json(record.value).body, record)
        elif kind == b"repair":
            found += _repair(state, Round.model_validate_json(headers[H_REPAIR]), record, offset)
        elif kind == b"correction":
            body = Correction.model_validate_json(headers[H_CORRECTION])
            if body.doubled:
                _void(state, record.value, offset)
            else:
                found += _correction(state, record.value[: body.was], record.value[body.was :], record, offset)
        if kind == b"tick" or offset % BARRIER_EVERY == BARRIER_EVERY - 1:
            found += _barrier(state)
            if on_barrier is not None:
                on_barrier(state)
        if offset > state.newest_stamp:
            alerts += found
    return alerts


def _source_epoch(state: RowState, source_id: str, appended_ms: int) -> tuple[int, list[Alert]]:
    """Return which of the topics called usage.events rows come from; the second one and later ones are told of."""
    if not source_id:
        return max(0, len(state.epochs) - 1), []
    if source_id in state.epochs:
        return state.epochs.index(source_id), []
    state.epochs.append(source_id)
    told = Alert(
        id=alert_id("new_epoch", topics.EVENTS, source_id),
        kind="new_epoch",
        severity="critical",
        org_id="",
        scope="pipeline",
        name=topics.EVENTS,
        period="",
        received_at=EPOCH + timedelta(milliseconds=appended_ms),
        text="",
        facts={
            "stage": "watch",
            "topic": topics.EVENTS,
            "partition": 0,
            "first_offset": 0,
            "last_offset": 0,
            "topic_id": source_id,
        },
    )
    return len(state.epochs) - 1, [told] if len(state.epochs) > 1 else []


def _row(state: RowState, row: Row, offset: int, epoch: int) -> list[Alert]:
    source = epoch * 65_536 + row.src_partition
    replay = row.src_offset <= state.high.get(source, -1)
    if not replay:
        state.high[source] = row.src_offset
        state.accepted += 1
    clock = state.move_clock(row.src_partition, row.received_ms)
    late = replay or row.charged_us < (clock - state.horizon_s * 1000) * 1000
    if row.event_us >= state.remember_from_us:
        if row.identity in state.seen.setdefault(row.event_us // SLICE_US, set()):
            if row.identity in state.doubled or _is_void(state, row):
                state.to_void.append(row.identity)
            return []
        others = _times_of(state, row)
        state.seen[row.event_us // SLICE_US].add(row.identity)
        ahead = row.event_us > (row.received_ms + AHEAD_MS) * 1000
        if others and not ahead and min(*others, row.event_us) >= state.doubles_from_us:
            state.doubled.add(row.identity)
            state.to_void.append(row.identity)
            return []
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


def _times_of(state: RowState, row: Row) -> set[int]:
    """Return the times at which this id is remembered, and not as void."""
    known = {one for identities in state.seen.values() for one in identities if one[1:3] == (row.org, row.event_id)}
    times = {one[0] for one in known if len(one) == 3 and one[0] >= state.remember_from_us}
    return times - {one[0] for one in known if one[3:] == (DOUBLED_REVISION,)}


def _is_void(state: RowState, row: Row) -> bool:
    return (*row.identity, DOUBLED_REVISION) in state.seen.get(row.event_us // SLICE_US, ())


def _void(state: RowState, rows: Sequence[Row], offset: int) -> None:
    """Rows that were never counted are gone from the ledger; what was repaired from it may hold them.

    Those that were counted all the same, for want of what had come before them, are repaired.
    """
    for row in rows:
        counted = row.identity not in state.doubled and not _is_void(state, row)
        state.doubled.discard(row.identity)
        sealed_us = (state.clocks.get(row.src_partition, 0) - state.horizon_s * 1000) * 1000
        if row.event_us >= state.remember_from_us:
            state.seen.setdefault(row.event_us // SLICE_US, set()).add((*row.identity, row.revision))
        if row.event_us < state.remember_from_us or row.charged_us < sealed_us or counted:
            state.deferred[row.org, row.charged_us // 3_600_000_000] = offset


def _limits(policy: Policy, level: str, now_ms: int = 0) -> Iterable[int]:
    micro = {"day": policy.daily_limit_micro, "month": policy.monthly_limit_micro}.get(level)
    if micro is None:
        return []
    added = 0
    for one in policy.adjustments:
        if one.limit == f"{level}/money" and now_ms < one.until_ms:
            micro, added = one.amount or micro, one.added or added
    return [(micro + added) * 1000]


def _crossed(state: RowState, key: Key, before: int, after: int, at_ms: int) -> list[Alert]:
    level, bucket, org, kind, name = key
    return [
        budget(policy, level, limit, bucket, pct, at_ms, name)
        for policy in _policies_of(state, org, kind, name)
        for limit in _limits(policy, level, state.now_ms)
        for pct in policy.thresholds
        if before * 100 < pct * limit <= after * 100
    ]


def _policies_of(state: RowState, org: str, kind: str, name: str) -> list[Policy]:
    """Return the policies that bind a scope: its own, else the default for users or keys."""
    ours = [policy for policy in state.policies.values() if (policy.org_id, policy.scope) == (org, kind)]
    own = [policy for policy in ours if policy.name == name]
    return own or [policy for policy in ours if kind != "org" and policy.name == ""]


def budget(policy: Policy, level: str, limit: int, bucket: int, pct: int, at_ms: int, name: str) -> Alert:
    """Return the alert of a crossed threshold."""
    period = f"{EPOCH + timedelta(seconds=start_s(level, bucket)):%Y-%m-%d}"[: 10 if level == "day" else 7]
    return Alert(
        id=alert_id("budget", policy.policy_id, name, level, str(limit), period, str(pct)),
        kind="budget",
        severity="info",
        org_id=policy.org_id,
        scope=policy.scope,
        name=name,
        period=period,
        received_at=EPOCH + timedelta(milliseconds=at_ms),
        text="",
        facts={"policy_id": policy.policy_id, "threshold_pct": pct, "limit_nano": limit, "window": level},
    )


def _control(state: RowState, body: Any, record: Any) -> list[Alert]:
    if isinstance(body, PolicyDelete):
        gone = state.policies.pop(body.policy_id, None)
        state.changed[body.policy_id] = False
        if gone is not None and gone.name:  # the default takes its place
            default = _policies_of(state, gone.org_id, gone.scope, gone.name)
            return [
                alert
                for policy in default
                for alert in _uncovered_of(state, None, policy, gone.name, state.now_ms, record.timestamp)
            ]
    if not isinstance(body, PolicySet):
        return []
    policy = body.policy
    before = state.policies.get(policy.policy_id)
    state.policies[policy.policy_id] = policy
    state.changed[policy.policy_id] = True
    return _uncovered(state, before, policy, state.now_ms, record.timestamp)


def _uncovered(state: RowState, before: Policy | None, policy: Policy, was_ms: int, at_ms: int) -> list[Alert]:
    """Return what is used beyond a policy as it is now, and was not beyond `before` as of a time, of all it binds."""
    names = [policy.name]
    if policy.is_default:
        known = {key[4] for key in state.cells if key[2:4] == (policy.org_id, policy.scope)}
        names = [name for name in sorted(known) if policy in _policies_of(state, policy.org_id, policy.scope, name)]
    return [alert for name in names for alert in _uncovered_of(state, before, policy, name, was_ms, at_ms)]


def _uncovered_of(
    state: RowState, before: Policy | None, policy: Policy, name: str, was_ms: int, at_ms: int
) -> list[Alert]:
    alerts = []
    for level in ("day", "month"):
        bucket = bucket_at(level, at_ms // 1000)
        cell = state.cells.get((level, bucket, policy.org_id, policy.scope, name))
        if cell is not None:
            alerts += [
                budget(policy, level, limit, bucket, pct, at_ms, name)
                for limit in _limits(policy, level, state.now_ms)
                for pct in policy.thresholds
                if pct * limit <= cell.cost_nano * 100
                and not _was_over(before, level, pct, cell.cost_nano, was_ms, limit)
            ]
    return alerts


def _was_over(before: Policy | None, level: str, pct: int, cost_nano: int, was_ms: int, now: int) -> bool:
    """Tell whether an edge was crossed under the limit that held before: it alerts nobody again, unless it is spent."""
    if before is None or pct not in before.thresholds:
        return False
    return any(
        pct * limit <= cost_nano * 100 and (pct < 100 or limit == now) for limit in _limits(before, level, was_ms)
    )


def _expired(state: RowState) -> list[Alert]:
    """Let adjustments end whose time is over."""
    was_ms, state.now_ms = state.now_ms, max([state.now_ms, *state.clocks.values()])
    alerts = []
    for _, policy in sorted(state.policies.items()):
        if any(was_ms < one.until_ms <= state.now_ms for one in policy.adjustments):
            alerts += _uncovered(state, policy, policy, was_ms, state.now_ms)
    return alerts


def _correction(state: RowState, was: Sequence[Row], now: Sequence[Row], record: Any, offset: int) -> list[Alert]:
    changes: dict[Key, list[int]] = {}
    for number, row in enumerate(now):
        if not _revises(state, row, offset, moved=number >= len(was)):
            continue
        for sign, one in ((-1, was[number] if number < len(was) else None), (1, row)):
            for level in LEVELS if one is not None and not one.void else ():
                for org, kind, name in scopes_of(one):
                    key = (level, bucket_at(level, one.charged_us // 1_000_000), org, kind, name)
                    calls, cost = changes.setdefault(key, [0, 0])
                    changes[key] = [calls + sign, cost + sign * one.cost_nano]
    alerts = []
    for key, (calls, cost) in changes.items():
        cell = state.cell(key)
        if offset <= cell.stamp:
            continue
        before, cell.calls, cell.cost_nano, cell.dirty = cell.cost_nano, cell.calls + calls, cell.cost_nano + cost, True
        if start_s(key[0], key[1] + 1) * 1000 > record.timestamp:
            alerts += _crossed(state, key, before, cell.cost_nano, record.timestamp)
    return alerts


def _revises(state: RowState, row: Row, offset: int, *, moved: bool) -> bool:
    """Tell whether a replacement is to be folded: in time, and the first of its revision."""
    if (row.identity in state.doubled or _is_void(state, row)) and row.revision < DOUBLED_REVISION:
        return False
    sealed_us = (state.clocks.get(row.src_partition, 0) - state.horizon_s * 1000) * 1000
    known = state.seen.setdefault(row.event_us // SLICE_US, set()) if row.event_us >= state.remember_from_us else None
    late = known is None or row.charged_us < sealed_us
    if not late and known is not None:
        if (*row.identity, row.revision) in known:
            return False
        known.add((*row.identity, row.revision))
        if moved:
            late = row.identity in known
            known.add(row.identity)
    if late:
        state.deferred[row.org, row.charged_us // 3_600_000_000] = offset
    return not late


def _repair(state: RowState, round_: Round, record: Any, offset: int) -> list[Alert]:
    last_id, last_offset = state.repaired.get(round_.org_id, ("", -1))
    if (round_.id != last_id and round_.base < last_offset) or round_.base < state.base - 1:
        return []
    state.repaired[round_.org_id] = (round_.id, offset)
    for hour in round_.hours:
        if state.deferred.get((round_.org_id, hour), round_.base + 1) <= round_.base:
            del state.deferred[round_.org_id, hour]
    alerts = []
    for key, absolute, calls, cost_nano in record.value:
        cell = state.cell(key)
        if offset <= cell.stamp:
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


def _barrier(state: RowState) -> list[Alert]:
    ended, watermark = _expired(state), state.watermark_ms()
    if watermark is None:
        return ended
    state.remember_from_us = max(state.remember_from_us, (watermark - state.horizon_s * 1000) * 1000)
    for slice_ in [s for s in state.seen if (s + 1) * SLICE_US <= state.remember_from_us]:
        del state.seen[slice_]
    sealed_s = watermark // 1000 - state.horizon_s
    dirty = {key[:2] for key, cell in state.cells.items() if cell.dirty}
    for level, bucket in {key[:2] for key in state.cells} - dirty:
        if start_s(level, bucket + (2 if level == "month" else 1)) + _KEPT_S[level] <= sealed_s:
            for key in [key for key in state.cells if key[:2] == (level, bucket)]:
                del state.cells[key]
    return ended
