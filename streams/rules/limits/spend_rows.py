"""Spend rows: what each budget's scope has used of its tightest limits, as of the last folded offset.

A function of the state alone: two owners of a partition publish the same rows for the same stamp.
"""

from collections.abc import Iterable

import numpy as np

from tollmeter.schemas.spend import AsOf, Spend
from tollmeter.streams.rules.limits.budgets import level_of, used
from tollmeter.streams.rules.limits.periods import forecast_of, period_of
from tollmeter.streams.rules.limits.policies import Budget
from tollmeter.streams.rules.limits.used import at_risk_nano, totals_of
from tollmeter.streams.rules.pricing.fx import CURRENCIES
from tollmeter.streams.rules.windows.state import State
from tollmeter.streams.rules.windows.totals import CALLS

PEOPLE = ("user", "client_ip")


def spend_rows(state: State, scopes: Iterable[int]) -> list[Spend]:
    """Return the rows of these scopes, ordered by kind of period, unit and level; none before the first event."""
    if not state.clocks:
        return []
    now_s = max(state.clocks.values()) // 1000
    kinds: dict[tuple[tuple[str, str], str], list[tuple[int, Budget]]] = {}
    for scope in sorted(scopes):
        for budget in tightest(state.budgets.of(scope)):
            kinds.setdefault((budget.kind, level_of(budget)), []).append((scope, budget))
    rows: list[Spend] = []
    for _, bound in sorted(kinds.items()):
        numbers = np.array([scope for scope, _ in bound], dtype=np.int64)
        totals = totals_of(state, bound[0][1], numbers, now_s)
        spent, risk = used(totals, bound[0][1].unit).tolist(), at_risk_nano(totals).tolist()
        usd = used(totals, "USD").tolist() if bound[0][1].unit in CURRENCIES else [None] * len(bound)
        rows += [_row(state, *one, now_s) for one in zip(bound, spent, risk, usd, strict=True)]
    return rows


def tightest(budgets: Iterable[Budget]) -> list[Budget]:
    """Return the smallest budget of each kind of period and unit; among equals the first policy."""
    best: dict[tuple[str, str], Budget] = {}
    for budget in sorted(budgets, key=lambda budget: (budget.amount, budget.policy_id)):
        best.setdefault(budget.kind, budget)
    return list(best.values())


def nobody(state: State, scopes: Iterable[int]) -> frozenset[int]:
    """Return which of these are users or addresses that no policy names and no call in memory: of a forgotten one, too.

    They have no row: it would keep a name alive for which there is nothing to tell.
    """
    candidates = [scope for scope in scopes if state.scopes.names[scope][1] in PEOPLE and not _named(state, scope)]
    if not candidates:
        return frozenset()
    numbers = np.array(candidates, dtype=np.int64)
    calls = np.zeros(numbers.size, dtype=np.int64)
    for level in ("month", "day"):
        for cells in state.levels.get(level, {}).values():
            calls += cells.take(numbers)[:, CALLS]
    return frozenset(scope for scope, count in zip(candidates, calls.tolist(), strict=True) if not count)


def _named(state: State, scope: int) -> bool:
    """Tell whether a policy is about this scope itself, and not about each member of something."""
    _, kind, _ = state.scopes.names[scope]
    about = (budget.policy_id.split("/")[1:3] for budget in state.budgets.of(scope))
    return any(said_kind == kind and said_name for said_kind, said_name in about)


def _row(
    state: State, bound: tuple[int, Budget], spent: int, risk_nano: int, usd_nano: int | None, now_s: int
) -> Spend:
    scope, budget = bound
    org_id, kind, name = state.scopes.names[scope]
    starts_s, ends_s = period_of(budget.limit.window, budget.timezone, now_s)
    forecast = spent if budget.limit.period == "rolling" else forecast_of(spent, now_s - starts_s, ends_s - starts_s)
    return Spend(
        partition=state.partition,
        stamp=state.applied,
        org_id=org_id,
        scope=kind,
        name=name,
        period=budget.period,
        starts_s=starts_s,
        ends_s=ends_s,
        unit=budget.unit,
        spent=spent,
        at_risk_nano=risk_nano if budget.limit.measure == "money" else 0,
        limit=budget.amount,
        policy_id=budget.policy_id,
        remaining=max(0, budget.amount - spent),
        percent=spent * 100 // budget.amount,
        forecast=forecast,
        usd_nano=usd_nano,
    )


def as_of(state: State) -> AsOf | None:
    """Return up to which append time every event of this partition is counted; None before all sources have a clock."""
    watermark = state.watermark_ms()
    if watermark is None:
        return None
    return AsOf(partition=state.partition, stamp=state.applied, as_of_ms=watermark)
