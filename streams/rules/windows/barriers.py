"""Barriers of the log, every tick and every 64th offset: only there do buckets close, peaks step, ids get forgotten.

A barrier is a place in the log, not in time, so all this happens at the same place in every replay.
"""

import numpy as np

from tollmeter.schemas.alert import Alert
from tollmeter.schemas.policy import MAX_ROLLING_HOURS
from tollmeter.streams.rules.limits.budgets import crossed
from tollmeter.streams.rules.limits.used import use_of
from tollmeter.streams.rules.windows.alerts import ingest_loop_alert, unpriced_alert
from tollmeter.streams.rules.windows.anomalies import is_loop, loop_candidates, unpriced_share
from tollmeter.streams.rules.windows.burn import outlook, until_s
from tollmeter.streams.rules.windows.controls import edge_alert, expire
from tollmeter.streams.rules.windows.sessions import settle_sessions
from tollmeter.streams.rules.windows.state import HISTORY_DAYS, HISTORY_HOURS, State
from tollmeter.streams.rules.windows.suspects import suspicion
from tollmeter.streams.rules.windows.totals import (
    CALLS,
    INPUT,
    LEVELS,
    MINUTES_PER_DAY,
    MINUTES_PER_HOUR,
    OUTPUT,
    PEAK_HOUR,
    PEAK_MINUTE,
    QUARTER,
    UNKNOWN_MODEL,
    bucket_at,
    bucket_end_s,
    bucket_start_s,
    key_cost,
    plain_level,
)

BARRIER_EVERY = 64
KEPT_MONTHS = 2
_AFTER_S = {"hour": HISTORY_HOURS * 3_600, "day": (HISTORY_DAYS - 1) * 86_400}


def is_barrier(offset: int) -> bool:
    """Tell whether the record at this offset is a barrier whatever it holds: a backlog may have no ticks for hours."""
    return offset % BARRIER_EVERY == BARRIER_EVERY - 1


def move_clocks(state: State, clocks: dict[int, int], offset: int) -> None:
    """Take over the clocks (ms) of source partitions that PRICE has read to their head."""
    for source, now_ms in clocks.items():
        state.move_clock(source, now_ms)
    state.applied = offset


def barrier(state: State, *, caught_up: bool) -> list[Alert]:
    """Close, seal and forget what the watermark has passed; return what the open buckets show.

    Before it has caught up with its newest cell the state holds totals from further on in the log: no time to judge.
    """
    found = [suspicion(state.scopes, finding) for finding in state.detector.step(state.applied)]
    watermark = state.watermark_ms()
    horizon_us = 0 if watermark is None else (watermark - state.rules.horizon_ms) * 1000
    state.remember_from_us = state.seen.forget_before(max(state.remember_from_us, horizon_us))
    ended = expire(state)  # by the fastest clock, as a restart takes it: no source that is silent keeps a raise alive
    if caught_up:
        found += ended
    if watermark is None:
        return found
    _close(state, watermark // 1000 - state.rules.close_after_s)
    _forget(state, watermark // 1000 - state.rules.horizon_s)
    if not caught_up:
        return found
    settle_sessions(state, _now_ms(state) // 1000, watermark // 1000 - state.rules.horizon_s)
    return found + _loops(state) + _unpriced(state) + _rolling(state) + _outlook(state)


def _close(state: State, closed_s: int) -> None:
    """Step the peaks of keys over all buckets that end at or before `closed_s`, and over closed ones that changed."""
    minute, hour = closed_s // 60, closed_s // 3_600
    for level, column, length, since, until in (
        ("minute", PEAK_MINUTE, MINUTES_PER_DAY, state.closed_minute, minute),
        ("hour", PEAK_HOUR, MINUTES_PER_DAY // MINUTES_PER_HOUR, state.closed_hour, hour),
    ):
        buckets = state.levels[level]
        due = {bucket for bucket in buckets if since <= bucket < until}
        due |= {bucket for kind, bucket in state.touched if kind == level and bucket in buckets}
        for bucket in sorted(due):
            cells = buckets[bucket]
            keys = np.flatnonzero(state.scopes.of_kind(cells.scopes, "api_key"))
            if keys.size:
                peaks = key_cost(state.live(level, bucket, cells.scopes[keys], cells.values[keys]))
                state.cells("day", bucket // length).raise_peak(cells.scopes[keys], column, peaks)
    state.touched.clear()
    state.closed_minute, state.closed_hour = max(state.closed_minute, minute), max(state.closed_hour, hour)


def _forget(state: State, sealed_s: int) -> None:
    """Drop sealed buckets that nobody looks back at and that a snapshot holds; sealed ones never change again."""
    for level, buckets in state.levels.items():
        for bucket in sorted(buckets):
            if kept_until_s(level, bucket) <= sealed_s and buckets[bucket].clean:
                del buckets[bucket]
    state.raised = {key: end_s for key, end_s in state.raised.items() if end_s > sealed_s}


def kept_until_s(level: str, bucket: int) -> int:
    """Return the second from which on nobody looks back at a bucket, once it is sealed."""
    level = plain_level(level)
    if level == "month":
        return bucket_start_s(level, bucket + KEPT_MONTHS)
    if level == QUARTER:
        return bucket_end_s(level, bucket) + MAX_ROLLING_HOURS * 3_600
    if level not in LEVELS:  # late spend may still reach the period before
        end_s = bucket_end_s(level, bucket)
        return bucket_end_s(level, bucket_at(level, end_s))
    return bucket_end_s(level, bucket) + _AFTER_S.get(level, 0)


def _now_ms(state: State) -> int:
    return max(state.clocks.values())


def _loops(state: State) -> list[Alert]:
    """Look for ingest loops among the keys of every open hour."""
    alerts = []
    for hour, cells in sorted(state.levels["hour"].items()):
        if hour < state.closed_hour:
            continue
        values = state.live("hour", hour, cells.scopes, cells.values)
        for row in loop_candidates(values).tolist():
            scope = int(cells.scopes[row])
            if state.scopes.names[scope][1] != "api_key":
                continue
            inputs, outputs = int(values[row, INPUT]), int(values[row, OUTPUT])
            if is_loop(inputs, outputs, state.history(scope)):
                alert = ingest_loop_alert(state, hour, scope, inputs, outputs, _now_ms(state))
                alerts += _once(state, alert, bucket_start_s("hour", hour + 1))
    return alerts


def _unpriced(state: State) -> list[Alert]:
    """Look for organisations with too many unpriced calls today."""
    day = bucket_at("day", _now_ms(state) // 1000)
    cells = state.levels["day"].get(day)
    if cells is None:
        return []
    alerts = []
    values = state.live("day", day, cells.scopes, cells.values)
    for row in unpriced_share(values, state.rules.unpriced_share_pct).tolist():
        scope = int(cells.scopes[row])
        if state.scopes.names[scope][1] == "org":
            calls, count = int(values[row, CALLS]), int(values[row, UNKNOWN_MODEL])
            alert = unpriced_alert(state, day, scope, calls, count, _now_ms(state))
            alerts += _once(state, alert, bucket_start_s("day", day + 1))
    return alerts


def _rolling(state: State) -> list[Alert]:
    """Return the edges that rolling sums are beyond for the first time today, of scopes that have used something."""
    now_ms = _now_ms(state)
    alerts = []
    for scope in sorted(state.touched_rolling):
        for budget in state.budgets.of(scope):
            if budget.limit.period != "rolling":
                continue
            for edge in crossed(budget, 0, use_of(state, budget, scope, now_ms // 1000)):
                known = len(state.raised)
                alert = edge_alert(state, budget, scope, edge, now_ms)
                alerts += [alert] if len(state.raised) > known else []
    state.touched_rolling.clear()
    return alerts


def _outlook(state: State) -> list[Alert]:
    """Return what the pace of budgets says for the first time in its day or period, of scopes that have used some."""
    now_ms = _now_ms(state)
    alerts = []
    for scope in sorted(state.touched_budgets):
        for budget in state.budgets.of(scope):
            for alert in outlook(state, budget, scope, now_ms):
                alerts += _once(state, alert, until_s(alert, budget, now_ms // 1000))
    state.touched_budgets.clear()
    return alerts


def _once(state: State, alert: Alert, until_s: int) -> list[Alert]:
    if alert.id in state.raised:
        return []
    state.raised[alert.id] = until_s
    return [alert]
