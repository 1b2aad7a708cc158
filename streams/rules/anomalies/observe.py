"""Calls into profiles: what lies before a window is closed, learned and aged in one step, then the calls are added."""

import numpy as np

from tollmeter.streams.rules.anomalies.calls import Calls, Sorted
from tollmeter.streams.rules.anomalies.layout import (
    BODIES,
    BODY_COUNTS,
    BORN,
    CACHED,
    CALLS,
    COST,
    ERRORS,
    HOUR,
    HOUR_COST,
    HOUR_SUMS,
    HOURS,
    INPUT,
    KEPT_WINDOWS,
    LAST_NETWORKS,
    LAST_PEAKS,
    LAST_WEEK,
    LAST_YOUNG_MODELS,
    LAST_YOUNG_NETWORKS,
    LAYOUT,
    NETWORK_WINDOWS,
    NETWORKS,
    OPEN_SUMS,
    OUTPUT,
    P_ERRORS,
    P_PARTNERS,
    P_REPEATS,
    PARTNERS,
    PEAKS,
    PER_HOUR,
    PER_WEEK,
    RAISED,
    SLEPT,
    THIS_WEEK,
    VERSION,
    WEEK,
    WIDTH,
    WINDOW,
    YOUNG_MODELS,
    YOUNG_NETWORKS,
    Matrix,
    Vector,
    partners,
    peak,
    repeats,
    set_bits,
)

LEARNED_FACTOR, LEARNED_LEAST = 6, (8, 50, 20)
"""A window teaches at most six times the peak before it, or what is normal for anybody: a leak shall not be the norm
after one window. In the order of PEAKED."""
_GENERATIONS = (
    (THIS_WEEK, LAST_WEEK),
    (PEAKS, LAST_PEAKS),
    (NETWORKS, LAST_NETWORKS),
    (YOUNG_MODELS, LAST_YOUNG_MODELS),
    (YOUNG_NETWORKS, LAST_YOUNG_NETWORKS),
)
_MAX_COUNT = (1 << 16) - 1


def turn(profiles: Matrix, window: int) -> None:
    """Bring profiles to a window, but for those that are beyond it: learn from what is closed, and age."""
    at = np.maximum(profiles[:, WINDOW], window)
    idle = at - profiles[:, WINDOW]
    profiles[idle > KEPT_WINDOWS] = 0
    new = profiles[:, LAYOUT] == 0
    same_hour = profiles[:, HOUR] == at // PER_HOUR
    profiles[:, SLEPT] = np.where(new, 0, np.where(same_hour, np.maximum(idle, profiles[:, SLEPT]), idle))
    moved = (idle > 0) & ~new
    if moved.any():
        old = profiles[moved]
        _close_window(old)
        _close_hour(old, at[moved] // PER_HOUR)
        _age(old, at[moved] // PER_WEEK)
        profiles[moved] = old
    profiles[new, LAYOUT], profiles[new, BORN] = VERSION, at[new]
    profiles[:, WINDOW], profiles[:, HOUR], profiles[:, WEEK] = at, at // PER_HOUR, at // PER_WEEK


def _close_window(profiles: Matrix) -> None:
    _learn(profiles, P_PARTNERS, partners(profiles))
    _learn(profiles, P_ERRORS, profiles[:, ERRORS])
    if profiles.shape[1] == WIDTH:
        _learn(profiles, P_REPEATS, repeats(profiles))
        profiles[:, BODIES] = 0
        profiles[:, NETWORK_WINDOWS] += 1
    profiles[:, THIS_WEEK.start] += 1
    profiles[:, THIS_WEEK.start + 1 : THIS_WEEK.stop] += profiles[:, [CALLS, COST, INPUT, CACHED, OUTPUT]]
    profiles[:, OPEN_SUMS] = profiles[:, PARTNERS] = 0


def _learn(profiles: Matrix, column: int, value: Vector) -> None:
    least, before = LEARNED_LEAST[column], peak(profiles, column)
    most = np.maximum(least, LEARNED_FACTOR * before)
    at = PEAKS.start + column
    profiles[:, at] = np.maximum(profiles[:, at], np.minimum(value, most))


def _close_hour(profiles: Matrix, hour: Vector) -> None:
    over = profiles[:, HOUR] < hour
    profiles[over, HOURS] |= np.int64(1) << profiles[over, HOUR] % 24
    profiles[over, HOUR_SUMS] = profiles[over, RAISED : RAISED + 1] = 0


def _age(profiles: Matrix, week: Vector) -> None:
    """Let a week go: this one becomes the last one, and after two of them nothing is left."""
    weeks = week - profiles[:, WEEK]
    passed, forgotten = np.flatnonzero(weeks > 0), np.flatnonzero(weeks > 1)
    if not passed.size:
        return
    for this, last in _GENERATIONS if profiles.shape[1] == WIDTH else _GENERATIONS[:2]:
        profiles[passed, last] = profiles[passed, this]
        profiles[passed, this] = 0
        profiles[forgotten, last] = 0
    fortnights = week // 2 - profiles[:, WEEK] // 2
    hours = profiles[:, HOURS]
    profiles[:, HOURS] = np.where(fortnights == 1, hours << 24 & (1 << 48) - 1, np.where(fortnights > 1, 0, hours))


def add(profiles: Matrix, calls: Calls, by: Sorted, partners: Vector) -> None:
    """Add calls of one window to the profiles of `by.scopes`; `partners` are hashes, one for each call."""
    one = np.ones(calls.size, dtype=np.int64)
    sums = by.sums(one, calls.errors, calls.cost_nano, calls.input, calls.cached, calls.output, calls.ahead)
    profiles[:, OPEN_SUMS] += sums
    profiles[:, HOUR_COST] += sums[:, COST - CALLS]
    set_bits(profiles, PARTNERS, by.places, partners[by.order])


def add_bodies(profiles: Matrix, calls: Calls, by: Sorted) -> None:
    """Count the bodies of calls of one window."""
    places = by.places
    body = calls.body[by.order]
    known = np.flatnonzero(body)
    if known.size:
        counts = profiles[:, BODIES].copy().view(np.uint16).astype(np.int64)
        np.add.at(counts, (places[known], body[known] % BODY_COUNTS), 1)
        profiles[:, BODIES] = np.minimum(counts, _MAX_COUNT).astype(np.uint16).view(np.int64)
