"""New extremes: a window of a key that is dearer, dearer a call, or hungrier than any of its last one to two weeks.

Of the detectors that were tried on real tenants the new extreme is the cheapest and among the best; it needs two
numbers for each series, and windows without calls change nothing.
"""

import numpy as np

from tollmeter.streams.rules.anomalies.identity import INFO, NOTHING, WARNING, Verdict
from tollmeter.streams.rules.anomalies.layout import (
    CALLS,
    COST,
    HOUR_COST,
    P_COST,
    P_PER_CALL,
    P_RATIO,
    W_CALLS,
    W_WINDOWS,
    Mask,
    Matrix,
    peak,
    per_call,
    ratio,
    two_weeks,
    usual_day,
)
from tollmeter.streams.rules.anomalies.limits import Limits


def of_extremes(profiles: Matrix, past: Mask, limits: Limits) -> Verdict:
    """Return which keys are beyond themselves: info by one series, a warning by two or by money.

    Never critical: on any day more than one of a hundred real keys spends a usual day within an hour. Means of few
    calls say little: they count once a window has half of its usual calls, or is the dearest by itself.
    """
    figures, day, hour = limits.unusual_use, usual_day(profiles), profiles[:, HOUR_COST]
    values = {"cost": profiles[:, COST], "per_call": per_call(profiles), "ratio": ratio(profiles)}
    before = {"cost": peak(profiles, P_COST), "per_call": peak(profiles, P_PER_CALL), "ratio": peak(profiles, P_RATIO)}
    factors = {"cost": figures.cost_pct, "per_call": figures.per_call_pct, "ratio": figures.ratio_pct}
    usual_calls = two_weeks(profiles, W_CALLS) // np.maximum(two_weeks(profiles, W_WINDOWS), 1)
    many = (profiles[:, CALLS] * 2 >= usual_calls) | (values["cost"] > before["cost"])
    beyond = np.stack(
        [(before[name] > 0) & (values[name] // factors[name] * 100 > before[name]) & many for name in values]
    )
    fired = past & beyond.any(axis=0) & (hour >= np.maximum(figures.hour_nano, day * figures.day_pct // 100))
    graver = (beyond.sum(axis=0) > 1) | (hour * 4 >= day)
    level = np.where(fired, np.where(graver, WARNING, INFO), NOTHING)
    told = {
        "cost_nano": values["cost"],
        "past_cost_nano": before["cost"],
        "per_call_nano": values["per_call"],
        "past_per_call_nano": before["per_call"],
        "input_per_output": values["ratio"] // 1_000,
        "past_input_per_output": before["ratio"] // 1_000,
        "hour_nano": hour,
        "usual_day_nano": day,
    }
    return Verdict("unusual_use", 9, level, told)
