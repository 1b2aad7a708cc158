"""The rules about identity, each over whole columns of profiles: who is unlike himself, and by how much."""

from dataclasses import dataclass

import numpy as np

from tollmeter.streams.rules.anomalies import shares
from tollmeter.streams.rules.anomalies.layout import (
    BORN,
    CALLS,
    COST,
    ERRORS,
    P_ERRORS,
    P_PARTNERS,
    P_REPEATS,
    PARTNERS,
    W_WINDOWS,
    WINDOW,
    Mask,
    Matrix,
    Vector,
    distinct,
    peak,
    repeats,
    two_weeks,
)
from tollmeter.streams.rules.anomalies.limits import Dominance, Limits, Relative


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one rule says of each profile. `bit`: its place in `raised`, the next one is for critical findings."""

    kind: str
    bit: int
    fired: Mask
    cost_nano: Vector
    figures: dict[str, Vector]


def has_past(profiles: Matrix, limits: Limits) -> Mask:
    """Tell which profiles are old and busy enough to be held against themselves."""
    old = profiles[:, WINDOW] - profiles[:, BORN] >= limits.past_age_windows
    found: Mask = old & (two_weeks(profiles, W_WINDOWS) >= limits.past_windows)
    return found


def of_keys(profiles: Matrix, limits: Limits) -> list[Verdict]:
    """Return what the rules say of the open windows of API keys."""
    known, cost = has_past(profiles, limits), profiles[:, COST]
    errors, calls = profiles[:, ERRORS], profiles[:, CALLS]
    failing = errors * 100 >= calls * limits.error_storm.share_pct
    counts = (
        ("fan_out", limits.fan_out, "addresses", distinct(profiles[:, PARTNERS]), P_PARTNERS, None),
        ("error_storm", limits.error_storm, "errors", errors, P_ERRORS, failing),
        ("same_body", limits.same_body, "repeats", repeats(profiles), P_REPEATS, None),
    )
    found = []
    for number, (kind, figures, name, count, column, also) in enumerate(counts):
        past = peak(profiles, column)
        threshold = _threshold(figures, past, known)
        fired = (count > threshold) & (cost >= np.where(known, figures.floor_nano, figures.new_floor_nano))
        told = {name: count, "past_peak": past, "threshold": threshold, "calls": calls, "cost_nano": cost}
        found.append(Verdict(kind, 1 << 2 * number, fired if also is None else fired & also, cost, told))
    return found


def _threshold(figures: Relative, past: Vector, known: Mask) -> Vector:
    """Return the count (exclusive) from which on a window is told of."""
    found: Vector = np.maximum(np.where(known, figures.least, figures.new_least), figures.factor * past)
    return found


def dominating(orgs: Matrix, figures: Dominance) -> tuple[Mask, Matrix, Matrix]:
    """Return which groups of keys dominate their organisation's open hour, with share and usual share in thousandths.

    With a past: at least `least_pct`, `factor` times the usual share, more than ever, and dear beyond the usual share.
    """
    opened = orgs[:, shares.OPEN]
    total = opened.sum(axis=1, keepdims=True)
    share, usual = shares.thousandths(opened), shares.usual(orgs)
    keys = (opened > 0).sum(axis=1, keepdims=True)
    known = (orgs[:, shares.HOURS] + orgs[:, shares.LAST_HOURS] >= figures.hours)[:, None]
    doubled = (share >= 10 * figures.least_pct) & (share >= figures.factor * usual) & (share > shares.highest(orgs))
    doubled &= (opened - total // 1_000 * usual >= figures.excess_nano) & (keys >= figures.keys)
    most = (share > 10 * figures.new_pct) & (opened >= figures.new_floor_nano) & (keys >= figures.new_keys)
    return np.where(known, doubled, most), share, usual
