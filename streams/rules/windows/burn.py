"""Burn rate and forecast: a budget that will not last, told while most of it is still there.

A day's share is the limit divided by its days. A budget of a day is used up by its evening anyhow: its burn is told
where at that pace nothing is left before the day ends. The sums are those of whole hours up to now, so what is told was
spent at least. Who has no budget of his own is held against the default that binds him.
"""

from typing import NamedTuple

import numpy as np

from tollmeter.schemas.alert import Alert, alert_id, whom
from tollmeter.schemas.policy import ASKED_COLUMNS
from tollmeter.streams.rules.limits.budgets import level_of, used
from tollmeter.streams.rules.limits.periods import forecast_of
from tollmeter.streams.rules.limits.policies import Budget
from tollmeter.streams.rules.limits.used import use_of
from tollmeter.streams.rules.limits.words import pace
from tollmeter.streams.rules.windows.alerts import budget_facts, instant
from tollmeter.streams.rules.windows.state import State
from tollmeter.streams.rules.windows.totals import bucket_at, bucket_end_s, bucket_start_s, period_text

BURNS = ((1, 25), (6, 60))
"""(hours, percent of a day's share) that are told: at that pace the share is gone after 4, or after 10 hours."""
LEAST_NANO = 10**9
"""Of the budget's currency: below it a pace is nobody's concern."""
FORECAST_AFTER_PCT = 10
"""So much of a period has passed before its end is foretold: the first days say little."""
_DAYS = {"day": 1, "week": 7, "month": 30}


class Burn(NamedTuple):
    """What was spent in the last hours, and the share of a day."""

    hours: int
    spent: int
    share: int


def burning(state: State, budget: Budget, scope: int, now_s: int) -> Burn | None:
    """Return the fastest burn of a budget that is worth telling, None for none."""
    days = _DAYS.get(budget.limit.period)
    if days is None or budget.limit.measure != "money":
        return None
    share, one = budget.amount // days, np.array([scope], dtype=np.int64)
    by_hour = [
        int(used(cells.take(one), budget.unit)[0]) if (cells := state.levels["hour"].get(hour)) is not None else 0
        for hour in range(now_s // 3_600, now_s // 3_600 - BURNS[-1][0], -1)
    ]
    for hours, pct in BURNS:
        spent = sum(by_hour[:hours])
        if spent >= LEAST_NANO and spent * 100 >= pct * share:
            return Burn(hours, spent, share)
    return None


def forecast(state: State, budget: Budget, scope: int, now_s: int) -> int | None:
    """Return the use at the end of a week or month where it is more than the limit, None where not or not known."""
    if budget.limit.period not in ("week", "month") or budget.limit.measure != "money":
        return None
    level = level_of(budget)
    bucket = bucket_at(level, now_s)
    start, end = bucket_start_s(level, bucket), bucket_end_s(level, bucket)
    spent = use_of(state, budget, scope, now_s)
    if (now_s - start) * 100 < (end - start) * FORECAST_AFTER_PCT or not LEAST_NANO <= spent < budget.amount:
        return None
    total = forecast_of(spent, now_s - start, end - start)
    return total if total is not None and total >= budget.amount else None


def outlook(state: State, budget: Budget, scope: int, now_ms: int) -> list[Alert]:
    """Return what a budget's pace says at an instant, told before or not; that of a session or run says nothing."""
    if budget.scope in ASKED_COLUMNS or not budget.thresholds:
        return []
    now_s = now_ms // 1000
    spent = use_of(state, budget, scope, now_s)
    found = []
    burn, total = burning(state, budget, scope, now_s), forecast(state, budget, scope, now_s)
    left_h = (budget.amount - spent) * burn.hours // burn.spent if burn is not None else 0
    if burn is not None and spent < budget.amount and _runs_out(budget, left_h, now_s):
        facts = {"burn_hours": burn.hours, "burn_nano": burn.spent, "day_share_nano": burn.share, "hours_left": left_h}
        found.append(_alert(state, "burn_rate", budget, scope, now_ms, facts))
    if total is not None:
        found.append(_alert(state, "forecast", budget, scope, now_ms, {"forecast_nano": total}))
    return found


def _runs_out(budget: Budget, left_h: int, now_s: int) -> bool:
    """Tell whether a budget of a day is gone before its day ends; of a week or month the pace alone is told."""
    if budget.limit.period != "day":
        return True
    level = level_of(budget)
    return now_s + left_h * 3_600 < bucket_end_s(level, bucket_at(level, now_s))


def until_s(alert: Alert, budget: Budget, now_s: int) -> int:
    """Return until when such an alert is told once: a day for a burn, the period for a forecast."""
    level = "day" if alert.kind == "burn_rate" else level_of(budget)
    return bucket_end_s(level, bucket_at(level, now_s))


def _alert(state: State, kind: str, budget: Budget, scope: int, now_ms: int, facts: dict[str, int]) -> Alert:
    level = "day" if kind == "burn_rate" else level_of(budget)
    org, scope_kind, name = state.scopes.names[scope]
    period = period_text(level, bucket_at(level, now_ms // 1000))
    identity = (kind, budget.policy_id, budget.limit.key, str(budget.amount), scope_kind, name, period)
    facts = {**budget_facts(budget, use_of(state, budget, scope, now_ms // 1000)), **facts}
    return Alert(
        id=alert_id(*identity, str(facts.get("burn_hours", ""))),
        kind=kind,
        severity="warning",
        org_id=org,
        scope=scope_kind,
        name=name,
        period=period,
        received_at=instant(now_ms),
        text=f"{whom(org, scope_kind, name)} {pace(kind, facts)}",
        facts=facts,
    )
