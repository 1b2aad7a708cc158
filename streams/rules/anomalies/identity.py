"""The rules about identity, each over whole columns of profiles: who is unlike himself, and by how much."""

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from tollmeter.streams.rules.anomalies import shares
from tollmeter.streams.rules.anomalies.layout import (
    AHEAD,
    BORN,
    CACHED,
    CALLS,
    COST,
    ERRORS,
    HOUR,
    HOUR_COST,
    HOURS,
    INPUT,
    P_ERRORS,
    P_PARTNERS,
    P_REPEATS,
    PER_DAY,
    SLEPT,
    W_CACHED,
    W_CALLS,
    W_COST,
    W_INPUT,
    W_WINDOWS,
    WINDOW,
    YOUNG_MODEL_COST,
    YOUNG_NETWORK_COST,
    Mask,
    Matrix,
    Vector,
    partners,
    peak,
    repeats,
    two_weeks,
    usual_day,
)
from tollmeter.streams.rules.anomalies.limits import Dominance, Limits, Relative
from tollmeter.streams.rules.anomalies.young import Met

NOTHING, INFO, WARNING, CRITICAL = range(4)
_HALF = (1 << 24) - 1


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one rule says of each profile: a level, and its figures. `number`: its place in `raised`, two bits each."""

    kind: str
    number: int
    level: Vector
    figures: dict[str, Vector]
    example: Vector | None = None
    """The call that shows it."""
    shows: tuple[str, ...] = field(default=())
    """What of that call is told: "model", "address"."""


def has_past(profiles: Matrix, limits: Limits) -> Mask:
    """Tell which profiles are old and busy enough to be held against themselves."""
    old = profiles[:, WINDOW] - profiles[:, BORN] >= limits.past_age_windows
    found: Mask = old & (two_weeks(profiles, W_WINDOWS) >= limits.past_windows)
    return found


def of_keys(profiles: Matrix, past: Mask, limits: Limits) -> list[Verdict]:
    """Return what the rules say of the open windows of API keys, but for what is met for the first time."""
    addresses, repeated = partners(profiles), repeats(profiles)
    return [
        _counted(profiles, past, limits, Count("fan_out", 0, limits.fan_out, "addresses", addresses, P_PARTNERS)),
        _error_storm(profiles, past, limits),
        _counted(profiles, past, limits, Count("same_body", 2, limits.same_body, "repeats", repeated, P_REPEATS)),
        _woken(profiles, limits),
        _new_hour(profiles, past, limits),
        _cache_lost(profiles, past, limits),
        _clock_ahead(profiles, limits),
    ]


def of_addresses(profiles: Matrix, past: Mask, limits: Limits) -> list[Verdict]:
    """Return what the rules say of the open windows of addresses."""
    keys = partners(profiles)
    count = Count("shared_address", 0, limits.shared_address, "keys", keys, P_PARTNERS)
    return [_counted(profiles, past, limits, count)]


class Count(NamedTuple):
    """A count of the open window, the column of its peak, and from when on it is told."""

    kind: str
    number: int
    figures: Relative
    name: str
    value: Vector
    column: int


def _counted(profiles: Matrix, past: Mask, limits: Limits, count: Count, early: Mask | bool = True) -> Verdict:
    """Return the verdict on a count, held against its peak of two weeks; `early`: where less is told as info."""
    figures, before, cost = count.figures, peak(profiles, count.column), profiles[:, COST]
    threshold = np.maximum(np.where(past, figures.least, figures.new_least), figures.factor * before)
    fired = (count.value > threshold) & (cost >= np.where(past, figures.floor_nano, figures.new_floor_nano))
    lower = np.where(past & early, np.maximum(figures.info_least, figures.factor * before), threshold)
    begun = past & early & (count.value > lower) & (cost >= figures.info_floor_nano)
    told = {count.name: count.value, "past_peak": before, "has_past": past.astype(np.int64)}
    told |= {"threshold": np.where(fired, threshold, lower), "calls": profiles[:, CALLS], "cost_nano": cost}
    level = np.maximum(_level(fired, cost >= limits.critical_nano), np.where(begun, INFO, NOTHING))
    return Verdict(count.kind, count.number, level, told)


def _error_storm(profiles: Matrix, past: Mask, limits: Limits) -> Verdict:
    """Calls of a key fail: many of many, or most of some."""
    figures, errors, calls = limits.error_storm, profiles[:, ERRORS], profiles[:, CALLS]
    failing = errors * 100 >= calls * figures.share_pct
    count = Count("error_storm", 1, figures, "errors", errors * failing, P_ERRORS)
    return _counted(profiles, past, limits, count, errors * 100 >= calls * figures.info_share_pct)


def _level(warning: Mask, critical: Mask) -> Vector:
    found: Vector = np.where(warning, np.where(critical, CRITICAL, WARNING), NOTHING)
    return found


def _woken(profiles: Matrix, limits: Limits) -> Verdict:
    """A key that was silent for weeks spends."""
    cost = profiles[:, HOUR_COST]
    fired = (profiles[:, SLEPT] >= limits.dormant_days * PER_DAY) & (cost >= limits.floor_nano)
    told = {"slept_days": profiles[:, SLEPT] // PER_DAY, "cost_nano": cost}
    return Verdict("woken", 3, _level(fired, cost >= limits.critical_nano), told)


def _new_hour(profiles: Matrix, past: Mask, limits: Limits) -> Verdict:
    """A key with hours of its own spends in another one."""
    used = profiles[:, HOURS] & _HALF | profiles[:, HOURS] >> 24
    cost, count = profiles[:, HOUR_COST], np.bitwise_count(used).astype(np.int64)
    old = profiles[:, WINDOW] - profiles[:, BORN] >= limits.hours_age_days * PER_DAY
    fired = past & old & (count <= limits.hours_most) & (used >> profiles[:, HOUR] % 24 & 1 == 0)
    fired &= cost >= limits.floor_nano
    told = {"hour_of_day": profiles[:, HOUR] % 24, "hours_used": count, "cost_nano": cost}
    return Verdict("new_hour", 4, _level(fired, cost >= limits.critical_nano), told)


def _cache_lost(profiles: Matrix, past: Mask, limits: Limits) -> Verdict:
    """A key whose input used to be cached pays for it in full."""
    figures, cost, calls = limits.cache_lost, profiles[:, COST], profiles[:, CALLS]
    usual_pct = two_weeks(profiles, W_CACHED) * 100 // np.maximum(two_weeks(profiles, W_INPUT), 1)
    pct = profiles[:, CACHED] * 100 // np.maximum(profiles[:, INPUT], 1)
    per_call = two_weeks(profiles, W_COST) // np.maximum(two_weeks(profiles, W_CALLS), 1)
    fired = past & (usual_pct >= figures.usual_pct) & (pct * figures.factor <= usual_pct)
    fired &= (profiles[:, INPUT] >= figures.input_tokens) & (cost >= limits.floor_nano)
    fired &= cost // np.maximum(calls, 1) * 100 >= per_call * figures.cost_per_call_pct
    told = {"cached_pct": pct, "usual_cached_pct": usual_pct, "calls": calls, "cost_nano": cost}
    return Verdict("cache_lost", 5, _level(fired, cost >= limits.critical_nano), told)


def _clock_ahead(profiles: Matrix, limits: Limits) -> Verdict:
    """A key's calls come from the future: the clock of its service is wrong."""
    ahead, calls = profiles[:, AHEAD], profiles[:, CALLS]
    fired = (ahead >= limits.clock_ahead.least) & (ahead * 100 >= calls * limits.clock_ahead.share_pct)
    return Verdict("clock_ahead", 6, np.where(fired, INFO, NOTHING), {"ahead": ahead, "calls": calls})


def of_models(profiles: Matrix, met: Met, limits: Limits) -> Verdict:
    """A model far dearer than a key's others: told when it is met, critical when an hour of it outgrows a usual day."""
    cost, day = profiles[:, YOUNG_MODEL_COST], usual_day(profiles)
    critical = (met.example >= 0) & (cost >= np.maximum(limits.floor_nano, day))
    level = np.where(critical, CRITICAL, np.where(met.now, INFO, NOTHING))
    told = {"price_ratio_pct": met.ratio_pct, "cost_nano": cost, "usual_day_nano": day}
    return Verdict("new_model", 7, level, told, met.example, ("model", "address"))


def of_networks(profiles: Matrix, met: Met, limits: Limits) -> Verdict:
    """A network that a key with few of them was never used from: told when it is met, and when it costs much.

    A warning where an hour of it costs a quarter of a usual day: a second host of the same service takes less.
    """
    cost, day = profiles[:, YOUNG_NETWORK_COST], usual_day(profiles)
    here = met.example >= 0
    level = np.where(met.now, INFO, NOTHING)
    level = np.where(here & (cost >= np.maximum(limits.floor_nano, day // 4)), WARNING, level)
    level = np.where(here & (cost >= np.maximum(limits.critical_nano, day)), CRITICAL, level)
    told = {"networks": met.ratio_pct, "cost_nano": cost, "usual_day_nano": day}
    return Verdict("new_network", 8, level, told, met.example, ("address",))


def has_shares(orgs: Matrix, figures: Dominance) -> Mask:
    """Tell which organisations have a past that says who usually takes how much."""
    found: Mask = orgs[:, shares.HOURS] + orgs[:, shares.LAST_HOURS] >= figures.hours
    return found


def dominating(orgs: Matrix, figures: Dominance) -> tuple[Matrix, Matrix, Matrix]:
    """Return the level of each group of keys in its organisation's open hour, share and usual share in thousandths.

    With a past: at least `least_pct`, `factor` times the usual share, more than ever, dear beyond the usual share, and
    `dearest_factor` times its own dearest hour: where the others are silent nobody takes more than before.
    Never critical: most real keys work in batches, and shares of an hour jump.
    """
    opened = orgs[:, shares.OPEN]
    total = opened.sum(axis=1, keepdims=True)
    share, usual = shares.thousandths(opened), shares.usual(orgs)
    keys = (opened > 0).sum(axis=1, keepdims=True)
    known = has_shares(orgs, figures)[:, None]
    doubled = (share >= 10 * figures.least_pct) & (share >= figures.factor * usual) & (share > shares.highest(orgs))
    excess = opened - total // 1_000 * usual
    doubled &= (excess >= figures.excess_nano) & (keys >= figures.keys)
    doubled &= opened >= figures.dearest_factor * shares.dearest(orgs)
    most = (share > 10 * figures.new_pct) & (opened >= figures.new_floor_nano) & (keys >= figures.new_keys)
    with_past = np.where(excess >= figures.warning_excess_nano, WARNING, INFO)
    return np.where(known, doubled * with_past, most * WARNING), share, usual
