"""Standing: what a scope has used of a budget in the period that holds an instant, as far as the log is folded."""

import numpy as np

from tollmeter.streams.rules.limits.budgets import level_of, used
from tollmeter.streams.rules.limits.periods import STEP_S
from tollmeter.streams.rules.limits.policies import Budget
from tollmeter.streams.rules.windows.state import State
from tollmeter.streams.rules.windows.totals import AT_RISK, COLUMNS, QUARTER, Matrix, Vector, bucket_at

STEPS_PER_HOUR = 3_600 // STEP_S


def totals_of(state: State, budget: Budget, scopes: Vector, now_s: int) -> Matrix:
    """Return the totals of scopes in the current period of a budget; all given scopes share its level."""
    level = level_of(budget)
    if level == QUARTER:
        return _rolling(state, scopes, budget.limit.hours or 0, now_s)
    cells = state.levels.get(level, {}).get(bucket_at(level, now_s))
    return np.zeros((scopes.size, len(COLUMNS)), dtype=np.int64) if cells is None else cells.take(scopes)


def use_of(state: State, budget: Budget, scope: int, now_s: int) -> int:
    """Return what one scope has used of a budget in its current period."""
    one = np.array([scope], dtype=np.int64)
    return int(used(totals_of(state, budget, one, now_s), budget.unit)[0])


def at_risk_nano(totals: Matrix) -> Vector:
    """Return the part of the money in each row that is an estimate."""
    risk: Vector = totals[:, AT_RISK]
    return risk


def _rolling(state: State, scopes: Vector, hours: int, now_s: int) -> Matrix:
    """Return the sums of the last hours, up to the end of the 15 minutes that hold now."""
    last = now_s // STEP_S
    total = np.zeros((scopes.size, len(COLUMNS)), dtype=np.int64)
    for bucket, cells in state.levels.get(QUARTER, {}).items():
        if last - hours * STEPS_PER_HOUR < bucket <= last:
            total += cells.take(scopes)
    return total
