"""What any scope usually spends: the columns of a series, and how they learn from windows that are closed.

A key, an address, a user, an organisation: each is one row. Windows without calls are caught up at the next one in
closed form, so a row that nobody uses costs nothing. A leak shall not become the norm: a window raises a peak six times
at most, and mean and variance stand still while something is told, for a day at most.
"""

from typing import Any

import numpy as np

from tollmeter.streams.rules.anomalies.layout import (
    KEPT_WINDOWS,
    PER_DAY,
    PER_HOUR,
    PER_WEEK,
    WINDOW_MINUTES,
    Mask,
    Matrix,
    Vector,
)
from tollmeter.streams.rules.anomalies.limits import Unusual

Floats = np.ndarray[Any, np.dtype[np.float64]]

SINGLES = (
    "layout",
    "born",
    "window",
    "hour",
    "week",
    "raised",
    "began",
    "told",
    "back_off",
    "hour_cost",
    "calls",
    "cost",
    "input",
    "output",
    "top_key",
    "top_weight",
    "minute",
    "minute_cost",
)
"""The first six are those of profiles. `began`, `told`: windows of the first and the latest finding of an episode;
`back_off`: thousandths that thresholds are raised by. `hour_cost`: of the open hour; then sums of the open window; then
the key that may have most of its cost, by hash, and by how much (`weigh`); then the open minute, counted since 1970,
and its cost."""
LAYOUT, BORN, WINDOW, HOUR, WEEK, RAISED, BEGAN, TOLD, BACK_OFF, HOUR_COST, CALLS, COST, INPUT, OUTPUT = range(14)
TOP_KEY, TOP_WEIGHT, MINUTE, MINUTE_COST = range(14, 18)
SUMMED = ("windows", "calls", "cost")
S_WINDOWS, S_CALLS, S_COST = range(len(SUMMED))
PEAKED = ("cost", "hour", "per_call", "ratio", "minute")
P_COST, P_HOUR, P_PER_CALL, P_RATIO, P_MINUTE = range(len(PEAKED))
THIS_WEEK = slice(len(SINGLES), len(SINGLES) + len(SUMMED))
LAST_WEEK = slice(THIS_WEEK.stop, THIS_WEEK.stop + len(SUMMED))
PEAKS = slice(LAST_WEEK.stop, LAST_WEEK.stop + len(PEAKED))
LAST_PEAKS = slice(PEAKS.stop, PEAKS.stop + len(PEAKED))
MEAN, VARIANCE, SUM = range(LAST_PEAKS.stop, LAST_PEAKS.stop + 3)
"""Of the cost of a window, and the sum of what goes beyond; the bits of 64-bit floats."""
WIDTH = SUM + 1
VERSION = 2
_VERSION_1 = (
    *range(LAYOUT, TOP_KEY),
    *range(THIS_WEEK.start, LAST_WEEK.stop),
    *range(PEAKS.start, PEAKS.start + P_MINUTE),
    *range(LAST_PEAKS.start, LAST_PEAKS.start + P_MINUTE),
    *(MEAN, VARIANCE, SUM),
)
"""Where the columns of a row of version 1 stand now; it knew neither minutes nor whose most is."""
WIDTH_1 = len(_VERSION_1)
_GENERATIONS = ((THIS_WEEK, LAST_WEEK), (PEAKS, LAST_PEAKS))

LEARNED_FACTOR = 6
"""A window teaches at most so many times the peak before it."""
MEMORY = 500
"""Windows that mean and variance look back at, about: the first ones count alike."""
SLACK, FEW, CLIP = 1.5, 20, 6.0
"""A window adds its distance from the mean in standard deviations, 6 at most, less the slack; the first 20 add none."""
HIGHEST_SUM = 1_000.0
EPISODE = 36
"""Findings within six hours are one episode."""
FROZEN = PER_DAY
"""For so many windows an episode may keep mean and variance from learning."""
MOST_BACK_OFF = 3_000


def of_version_1(old: Matrix) -> Matrix:
    """Return rows of version 1 as they are now: no minute was dearer than the dearest window, until weeks show more."""
    rows = np.zeros((len(old), WIDTH), dtype=np.int64)
    rows[:, _VERSION_1] = old
    rows[:, MINUTE] = rows[:, WINDOW] * WINDOW_MINUTES
    for peaks in (PEAKS, LAST_PEAKS):
        rows[:, peaks.start + P_MINUTE] = rows[:, peaks.start + P_COST]
    rows[:, LAYOUT] = np.where(old[:, LAYOUT] == 1, VERSION, 0)
    return rows


def floats(rows: Matrix, column: int) -> Floats:
    """Return a column of floats."""
    return np.ascontiguousarray(rows[:, column]).view(np.float64)


def _put(rows: Matrix, column: int, values: Floats) -> None:
    rows[:, column] = values.view(np.int64)


def peak(rows: Matrix, column: int) -> Vector:
    """Return the highest closed value of two weeks."""
    found: Vector = np.maximum(rows[:, PEAKS.start + column], rows[:, LAST_PEAKS.start + column])
    return found


def summed(rows: Matrix, column: int) -> Vector:
    """Return a sum of the closed windows of two weeks."""
    found: Vector = rows[:, THIS_WEEK.start + column] + rows[:, LAST_WEEK.start + column]
    return found


def per_call(rows: Matrix) -> Vector:
    """Return what a call of the open window costs, in nano-USD."""
    found: Vector = rows[:, COST] // np.maximum(rows[:, CALLS], 1)
    return found


def ratio(rows: Matrix) -> Vector:
    """Return input by output tokens of the open window, in thousandths."""
    found: Vector = rows[:, INPUT] * 1_000 // np.maximum(rows[:, OUTPUT], 1)
    return found


def elapsed(rows: Matrix) -> Vector:
    """Return over how many windows the sums of two weeks go."""
    found: Vector = rows[:, WINDOW] - np.maximum(rows[:, BORN], (rows[:, WEEK] - 1) * PER_WEEK)
    return found


def usual_day(rows: Matrix) -> Vector:
    """Return what a day cost in both weeks, in nano-USD; a past of hours counts as a day."""
    found: Vector = summed(rows, S_COST) * PER_DAY // np.maximum(elapsed(rows), PER_DAY)
    return found


def steady(rows: Matrix, figures: Unusual) -> tuple[Mask, Mask]:
    """Return which rows are regular, and which at least semi-regular: by activity, and by how much windows differ."""
    active, windows = summed(rows, S_WINDOWS) * 100, np.maximum(elapsed(rows), 1)
    spread = np.sqrt(np.maximum(floats(rows, VARIANCE), 0.0)) * 100
    mean = floats(rows, MEAN)
    regular = (active >= figures.regular_active_pct * windows) & (spread <= figures.regular_spread_pct * mean)
    semi = (active >= figures.semi_active_pct * windows) & (spread <= figures.semi_spread_pct * mean)
    return regular, semi | regular


def turn(rows: Matrix, minute: int) -> None:
    """Bring rows to a minute, but for those that are beyond it: learn from what is closed, and age."""
    at = np.maximum(rows[:, MINUTE], minute)
    window = at // WINDOW_MINUTES
    idle = window - rows[:, WINDOW]
    rows[idle > KEPT_WINDOWS] = 0
    new = rows[:, LAYOUT] == 0
    moved = (idle > 0) & ~new
    _close_minute(rows, at)
    if moved.any():
        old = rows[moved]
        frozen = (old[:, TOLD] > 0) & (old[:, WINDOW] - old[:, TOLD] < PER_HOUR)
        frozen &= old[:, WINDOW] - old[:, BEGAN] < FROZEN
        _close_window(old, idle[moved], ~frozen)
        _close_hour(old, window[moved] // PER_HOUR)
        _age(old, window[moved] // PER_WEEK)
        rows[moved] = old
    rows[new, LAYOUT], rows[new, BORN] = VERSION, window[new]
    rows[:, MINUTE], rows[:, WINDOW] = at, window
    rows[:, HOUR], rows[:, WEEK] = window // PER_HOUR, window // PER_WEEK


def _close_minute(rows: Matrix, at: Vector) -> None:
    over = rows[:, MINUTE] < at
    _learn(rows, P_MINUTE, rows[:, MINUTE_COST] * over)
    rows[over, MINUTE_COST] = 0


def _close_window(rows: Matrix, idle: Vector, learning: Mask) -> None:
    for column, value in ((P_COST, rows[:, COST]), (P_PER_CALL, per_call(rows)), (P_RATIO, ratio(rows))):
        _learn(rows, column, value)
    rows[:, THIS_WEEK] += np.stack((np.ones_like(idle), rows[:, CALLS], rows[:, COST]), axis=1)
    _put(rows, SUM, open_sum(rows))
    mean, variance = _stepped(rows)
    keep, gone = decay(rows[:, WINDOW] + 1 - rows[:, BORN], idle - 1), mean * mean + variance
    deviation = np.sqrt(np.maximum(variance, 0.0)) + 1.0
    drop = SLACK + np.minimum(mean / deviation, CLIP)
    _put(rows, SUM, np.maximum(0.0, floats(rows, SUM) - (idle - 1) * drop))
    after = mean * keep
    _put(rows, MEAN, np.where(learning, after, floats(rows, MEAN)))
    _put(rows, VARIANCE, np.where(learning, np.maximum(gone * keep - after * after, 0.0), floats(rows, VARIANCE)))
    rows[:, CALLS : TOP_WEIGHT + 1] = 0


def _learn(rows: Matrix, column: int, value: Vector) -> None:
    before, at = peak(rows, column), PEAKS.start + column
    most = np.where(before == 0, value, LEARNED_FACTOR * before)
    rows[:, at] = np.maximum(rows[:, at], np.minimum(value, most))


def _rate(seen: Vector) -> Floats:
    found: Floats = 1.0 / np.minimum(seen + 1.0, float(MEMORY))
    return found


def _stepped(rows: Matrix) -> tuple[Floats, Floats]:
    """Return mean and variance after the open window."""
    rate = _rate(rows[:, WINDOW] - rows[:, BORN])
    off = rows[:, COST] - floats(rows, MEAN)
    step = rate * off
    return floats(rows, MEAN) + step, (1.0 - rate) * (floats(rows, VARIANCE) + off * step)


def open_sum(rows: Matrix) -> Floats:
    """Return the sum of what goes beyond the mean, as if the open window closed now."""
    off = rows[:, COST] - floats(rows, MEAN)
    deviation = np.sqrt(np.maximum(floats(rows, VARIANCE), 0.0)) + 1.0
    far = np.where(rows[:, WINDOW] - rows[:, BORN] > FEW, np.clip(off / deviation, -CLIP, CLIP), 0.0)
    found: Floats = np.clip(floats(rows, SUM) + far - SLACK, 0.0, HIGHEST_SUM)
    return found


_POWERS = [1.0 - 1.0 / MEMORY]
while len(_POWERS) < KEPT_WINDOWS.bit_length():
    _POWERS.append(_POWERS[-1] * _POWERS[-1])


def decay(seen: Vector, empty: Vector) -> Floats:
    """Return what is left of a mean, and of a mean square, after so many windows of nothing: by products alone.

    No power function: its last bit differs from machine to machine.
    """
    alike = np.minimum(empty, np.maximum(0, MEMORY - 1 - seen))
    left: Floats = seen / np.maximum(seen + alike, 1)
    rest = empty - alike
    for bit, power in enumerate(_POWERS):
        left = np.where(rest >> bit & 1 != 0, left * power, left)
    return left


def _close_hour(rows: Matrix, hour: Vector) -> None:
    over = rows[:, HOUR] < hour
    _learn(rows, P_HOUR, rows[:, HOUR_COST] * over)
    rows[over, HOUR_COST] = rows[over, RAISED] = 0


def _age(rows: Matrix, week: Vector) -> None:
    """Let a week go: this one becomes the last one, and half of the back-off is forgotten."""
    weeks = week - rows[:, WEEK]
    passed = weeks > 0
    if passed.any():
        for this, last in _GENERATIONS:
            rows[passed, last] = rows[passed, this]
            rows[passed, this] = 0
            rows[weeks > 1, last] = 0
        rows[:, BACK_OFF] >>= np.minimum(weeks, 60)


def add(rows: Matrix, sums: Matrix) -> None:
    """Add calls, cost, input and output of one minute."""
    rows[:, CALLS : OUTPUT + 1] += sums
    rows[:, HOUR_COST] += sums[:, COST - CALLS]
    rows[:, MINUTE_COST] += sums[:, COST - CALLS]


def weigh(rows: Matrix, key: Vector, ahead: Vector) -> None:
    """Add whose most is of some calls: a key, by hash, and what it is ahead of all others together (nano-USD).

    Who has more than half is found, and weighs what it is ahead at least (Boyer and Moore, MJRTY, 1981).
    """
    same, more = rows[:, TOP_KEY] == key, ahead - rows[:, TOP_WEIGHT]
    rows[:, TOP_KEY] = np.where(~same & (more > 0), key, rows[:, TOP_KEY])
    rows[:, TOP_WEIGHT] = np.where(same, rows[:, TOP_WEIGHT] + ahead, np.abs(more))


def tell(rows: Matrix, told: Mask, figures: Unusual) -> None:
    """Note that something was told: an episode begins, or goes on; what begins raises the thresholds for some weeks."""
    begins = told & ((rows[:, TOLD] == 0) | (rows[:, WINDOW] - rows[:, TOLD] >= EPISODE))
    raised = np.minimum(rows[:, BACK_OFF] + figures.back_off_pct * 10, MOST_BACK_OFF)
    rows[:, BACK_OFF] = np.where(begins, raised, rows[:, BACK_OFF])
    rows[:, BEGAN] = np.where(begins, rows[:, WINDOW], rows[:, BEGAN])
    rows[:, TOLD] = np.where(told, rows[:, WINDOW], rows[:, TOLD])
