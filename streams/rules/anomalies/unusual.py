"""Statistics of a scope: a window or hour that is a new extreme of one to two weeks, or many that add up to one.

Of the detectors that were tried on real tenants the new extreme and the cumulative sum are the cheapest and the best:
the one finds jumps at once, the other what grows. Both need a few numbers for each series.
"""

import numpy as np

from tollmeter.streams.rules.anomalies import series
from tollmeter.streams.rules.anomalies.identity import INFO, NOTHING, WARNING, Verdict
from tollmeter.streams.rules.anomalies.layout import Mask, Matrix, Vector
from tollmeter.streams.rules.anomalies.limits import Limits

PARTS = ("cost", "hour", "per_call", "ratio", "sum", "minute")
MANY = 8
"""Means of few calls say little: they count once a window has the usual calls of a window divided by it."""


def has_past(rows: Matrix, limits: Limits) -> Mask:
    """Tell which rows are old and busy enough to be held against themselves."""
    found: Mask = rows[:, series.WINDOW] - rows[:, series.BORN] >= limits.past_age_windows
    found &= series.summed(rows, series.S_WINDOWS) >= limits.past_windows
    return found


def beyond(rows: Matrix) -> Matrix:
    """Return how far each part is from its past, in percent (the sum: in hundredths); 0 where there is none.

    Means count once a window has an eighth of its usual calls, or is the dearest by itself.
    """
    cost, hour = rows[:, series.COST], rows[:, series.HOUR_COST]
    windows = np.maximum(series.summed(rows, series.S_WINDOWS), 1)
    usual_calls = series.summed(rows, series.S_CALLS) // windows
    many = (rows[:, series.CALLS] * MANY >= usual_calls) | (cost > series.peak(rows, series.P_COST))
    values = (cost, hour, series.per_call(rows) * many, series.ratio(rows) * many)
    found = [_percent(value, series.peak(rows, column)) for column, value in enumerate(values)]
    minute = _percent(rows[:, series.MINUTE_COST], series.peak(rows, series.P_MINUTE))
    return np.stack([*found, (series.open_sum(rows) * 100).astype(np.int64), minute])


def _percent(value: Vector, before: Vector) -> Vector:
    """Return a value in percent of the one before, without overflow; 0 where nothing was before."""
    shift = np.where(value > 1 << 56, 7, 0)
    found: Vector = np.where(before > 0, (value >> shift) * 100 // np.maximum(before >> shift, 1), 0)
    return found


def dear_enough(rows: Matrix, limits: Limits) -> Mask:
    """Tell by part and row what costs enough to be told of: the open hour, for the last part the open minute."""
    figures, day = limits.unusual_use, series.usual_day(rows)
    hour = rows[:, series.HOUR_COST] >= np.maximum(figures.hour_nano, day * figures.day_pct // 100)
    least = np.maximum(figures.minute_nano, day * figures.minute_day_permille // 1_000)
    minute = rows[:, series.MINUTE_COST] >= least
    return np.stack([*[hour] * (len(PARTS) - 1), minute])


def far(rows: Matrix, limits: Limits) -> Matrix:
    """Return how far each part is from its past where that may be told, 0 elsewhere."""
    return beyond(rows) * (has_past(rows, limits) & dear_enough(rows, limits))


def of_series(rows: Matrix, limits: Limits) -> Verdict:
    """Return which scopes are beyond themselves: info by one part; a warning by two or by money, for steady scopes.

    Never critical: on any day more than one of a hundred real keys spends a usual day within an hour.
    """
    figures, day, hour = limits.unusual_use, series.usual_day(rows), rows[:, series.HOUR_COST]
    _, steady = series.steady(rows, figures)
    reached = np.where(steady, *(np.array(parts.values())[:, None] for parts in (figures.steady, figures.irregular)))
    reached = reached * (1_000 + rows[:, series.BACK_OFF]) // 1_000
    over = far(rows, limits) >= reached
    fired = over.any(axis=0)
    graver = steady & ((over.sum(axis=0) > 1) | (hour * 4 >= day))
    level = np.where(fired, np.where(graver, WARNING, INFO), NOTHING)
    told = {
        "cost_nano": rows[:, series.COST],
        "past_cost_nano": series.peak(rows, series.P_COST),
        "per_call_nano": series.per_call(rows),
        "past_per_call_nano": series.peak(rows, series.P_PER_CALL),
        "input_per_1000_output": series.ratio(rows),
        "past_input_per_1000_output": series.peak(rows, series.P_RATIO),
        "hour_nano": hour,
        "past_hour_nano": series.peak(rows, series.P_HOUR),
        "minute_nano": rows[:, series.MINUTE_COST],
        "past_minute_nano": series.peak(rows, series.P_MINUTE),
        "usual_window_nano": np.maximum(series.floats(rows, series.MEAN), 0.0).astype(np.int64),
        "usual_day_nano": day,
        "signals": (over * (1 << np.arange(len(PARTS)))[:, None]).sum(axis=0),
    }
    return Verdict("unusual_use", 0, level, told)


def mark(rows: Matrix, told: Mask, limits: Limits) -> None:
    """Note what was told: its episode begins or goes on, and sums begin anew."""
    series.tell(rows, told, limits.unusual_use)
    rows[told, series.SUM] = 0
