"""Calls into profiles: what lies before a window is closed, learned and aged in one step, then the calls are added."""

import numpy as np

from tollmeter.streams.rules.anomalies.calls import Calls, Sorted
from tollmeter.streams.rules.anomalies.layout import (
    BODIES,
    BODY_COUNTS,
    BORN,
    CALLS,
    COST,
    ERRORS,
    HOUR,
    HOUR_COST,
    HOURS,
    KEPT_WINDOWS,
    LAST_NETWORKS,
    LAST_PEAKS,
    LAST_WEEK,
    LAYOUT,
    NETWORKS,
    OPEN_SUMS,
    P_ERRORS,
    P_PARTNERS,
    P_REPEATS,
    PARTNERS,
    PEAKS,
    PER_HOUR,
    PER_WEEK,
    RAISED,
    SET_BITS,
    SLEPT,
    THIS_WEEK,
    VERSION,
    WEEK,
    WINDOW,
    Matrix,
    Vector,
    distinct,
    peak,
    repeats,
)

LEARNED_FACTOR, LEARNED_LEAST = 6, (8, 50, 20)
"""A window teaches at most six times the peak before it, or what is normal for anybody: a leak shall not be the norm
after one window. In the order of PEAKED."""
_MAX_COUNT = (1 << 16) - 1


def turn(profiles: Matrix, window: int) -> None:
    """Bring profiles to a window that none of them is beyond: learn from what is closed, and age."""
    idle = window - profiles[:, WINDOW]
    profiles[idle > KEPT_WINDOWS] = 0
    new = profiles[:, LAYOUT] == 0
    profiles[:, SLEPT] = np.where(idle > 0, np.where(new, 0, idle), profiles[:, SLEPT])
    moved = (idle > 0) & ~new
    if moved.any():
        old = profiles[moved]
        _close_window(old)
        _close_hour(old, window // PER_HOUR)
        _age(old, window // PER_WEEK)
        profiles[moved] = old
    profiles[new, LAYOUT], profiles[new, BORN] = VERSION, window
    profiles[:, WINDOW], profiles[:, HOUR], profiles[:, WEEK] = window, window // PER_HOUR, window // PER_WEEK


def _close_window(profiles: Matrix) -> None:
    for column, value in (
        (P_PARTNERS, distinct(profiles[:, PARTNERS])),
        (P_ERRORS, profiles[:, ERRORS]),
        (P_REPEATS, repeats(profiles)),
    ):
        _learn(profiles, column, value)
    sums = profiles[:, OPEN_SUMS][:, [0, 2, 3, 4, 5]]  # all but errors
    profiles[:, THIS_WEEK.start] += 1
    profiles[:, THIS_WEEK.start + 1 : THIS_WEEK.stop] += sums
    profiles[:, OPEN_SUMS] = profiles[:, PARTNERS] = profiles[:, BODIES] = 0


def _learn(profiles: Matrix, column: int, value: Vector) -> None:
    most = np.maximum(LEARNED_LEAST[column], LEARNED_FACTOR * peak(profiles, column))
    at = PEAKS.start + column
    profiles[:, at] = np.maximum(profiles[:, at], np.minimum(value, most))


def _close_hour(profiles: Matrix, hour: int) -> None:
    over = profiles[:, HOUR] < hour
    profiles[over, HOUR_COST] = profiles[over, RAISED] = 0


def _age(profiles: Matrix, week: int) -> None:
    """Let a week go: this one becomes the last one, and after two of them nothing is left."""
    weeks = week - profiles[:, WEEK]
    passed = weeks > 0
    for this, last in ((THIS_WEEK, LAST_WEEK), (PEAKS, LAST_PEAKS), (NETWORKS, LAST_NETWORKS)):
        profiles[passed, last] = profiles[passed, this]
        profiles[passed, this] = 0
        profiles[weeks > 1, last] = 0
    fortnights = week // 2 - profiles[:, WEEK] // 2
    hours = profiles[:, HOURS]
    profiles[:, HOURS] = np.where(fortnights == 1, hours << 24 & (1 << 48) - 1, np.where(fortnights > 1, 0, hours))


def add(profiles: Matrix, calls: Calls, by: Sorted, partners: Vector) -> None:
    """Add calls of one window to the profiles of `by.scopes`; `partners` are hashes, one for each call."""
    one = np.ones(calls.size, dtype=np.int64)
    sums = by.sums(one, calls.errors, calls.cost_nano, calls.input, calls.cached, calls.output)
    profiles[:, OPEN_SUMS] += sums
    profiles[:, HOUR_COST] += sums[:, COST - CALLS]
    places = by.places
    set_bits(profiles, PARTNERS, places, partners[by.order])
    body = calls.body[by.order]
    known = np.flatnonzero(body)
    if known.size:
        counts = profiles[:, BODIES].copy().view(np.uint16).astype(np.int64)
        np.add.at(counts, (places[known], body[known] % BODY_COUNTS), 1)
        profiles[:, BODIES] = np.minimum(counts, _MAX_COUNT).astype(np.uint16).view(np.int64)


def set_bits(profiles: Matrix, block: slice, places: Vector, hashes: Vector) -> None:
    """Set the bit of each hash in its profile; a hash of 0 is nobody's."""
    named = np.flatnonzero(hashes)
    bits = hashes[named] % SET_BITS
    words = np.ascontiguousarray(profiles[:, block])
    np.bitwise_or.at(words, (places[named], bits >> 6), np.int64(1) << (bits & 63))
    profiles[:, block] = words
