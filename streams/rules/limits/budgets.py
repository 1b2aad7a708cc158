"""Budgets: an edge fires on the one addition that carries a scope's use from below it to at or above it.

Money is org-billed cost plus at-risk money in the budget's currency; calls on a user's own key never count, neither as
tokens nor as requests, and a refused call is no request. The period is part of the alert's identity: nothing is reset.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tollmeter.schemas.alert import Severity
from tollmeter.schemas.money import NANO_PER_MICRO
from tollmeter.schemas.policy import ASKED_COLUMNS
from tollmeter.streams.rules.limits.policies import Budget
from tollmeter.streams.rules.windows.totals import (
    AT_RISK,
    BLOCKED,
    BYOK_CALLS,
    BYOK_TOKENS,
    CALLS,
    COST,
    INPUT,
    OUTPUT,
    QUARTER,
    SPEND_EUR,
    SPEND_RUB,
    Matrix,
    Vector,
)

_PLUS = {
    "USD": [COST, AT_RISK],
    "EUR": [SPEND_EUR],
    "RUB": [SPEND_RUB],
    "tokens": [INPUT, OUTPUT],
    "requests": [CALLS],
}
_MINUS = {"tokens": [BYOK_TOKENS], "requests": [BLOCKED, BYOK_CALLS]}
_NEVER = np.iinfo(np.int64).max
REMAINING = "remaining"


@dataclass(frozen=True, slots=True)
class Edge:
    """A use that alerts once it is reached: a percentage of the limit, or so much that too little remains."""

    label: str
    """The percentage as text, or REMAINING."""
    amount: int

    @property
    def pct(self) -> int | None:
        return None if self.label == REMAINING else int(self.label)


UNREACHED = Edge("100", int(_NEVER))
"""Keeps the scope of a budget that alerts nobody among those whose use is told."""


def edges_of(budget: Budget) -> tuple[Edge, ...]:
    """Return the edges of a budget in ascending order; a percentage of a limit is rounded up, exactly."""
    edges = [Edge(str(pct), -(-pct * budget.amount // 100)) for pct in budget.thresholds]
    if budget.alert_remaining_micro is not None:
        edges.append(Edge(REMAINING, max(1, budget.amount - budget.alert_remaining_micro * NANO_PER_MICRO + 1)))
    return tuple(sorted(edges, key=lambda edge: (edge.amount, edge.label)))


def level_of(budget: Budget) -> str:
    """Return the level of windows that holds the use of a budget; a rolling one is a sum of 15-minute windows.

    Sessions and runs have no windows but those of their budgets: they are forgotten with the period.
    """
    if budget.limit.period == "rolling":
        return QUARTER
    plain = budget.timezone == "UTC" and budget.limit.period in ("day", "month") and budget.scope not in ASKED_COLUMNS
    return budget.limit.period if plain else budget.period


def period_level_of(budget: Budget) -> str:
    """Return the level whose buckets name the periods of a budget in alerts: rolling ones alert once a UTC day."""
    level = level_of(budget)
    return "day" if level == QUARTER else level


def used(values: Matrix, unit: str) -> Vector:
    """Return what counts toward limits of a unit for each row of totals: nano-units of a currency, or a count."""
    total: Vector = values[:, _PLUS[unit]].sum(axis=1)
    if unit in _MINUS:
        total = total - values[:, _MINUS[unit]].sum(axis=1)
    return total


def crossed(budget: Budget, before: int, after: int) -> list[Edge]:
    """Return the edges that lie in (before, after], in ascending order."""
    return [edge for edge in edges_of(budget) if before < edge.amount <= after]


def severity(edge: Edge) -> Severity:
    """Return how urgent an edge is: the whole budget is critical, from 80 % on a warning."""
    if edge.pct is None:
        return "warning"
    if edge.pct >= 100:
        return "critical"
    return "warning" if edge.pct >= 80 else "info"


class Watchlist:
    """The edges of all scopes that have a budget of one level and unit, as arrays: most batches cross none of them."""

    def __init__(self) -> None:
        self._row_of = np.full(64, -1, dtype=np.int64)
        self._edges = np.full((16, 4), _NEVER, dtype=np.int64)
        self._free: list[int] = []
        self._size = 0

    def set(self, scope: int, amounts: Sequence[int]) -> None:
        """Watch these uses of a scope in place of any earlier ones; none: watch it no longer."""
        if scope >= self._row_of.size:
            grown = np.full(max(scope + 1, 2 * self._row_of.size), -1, dtype=np.int64)
            grown[: self._row_of.size] = self._row_of
            self._row_of = grown
        row = int(self._row_of[scope])
        if not amounts:
            if row >= 0:
                self._row_of[scope] = -1
                self._free.append(row)
            return
        if row < 0:
            row = self._row_of[scope] = self._new_row()
        distinct = sorted({min(amount, _NEVER) for amount in amounts})
        self._widen(len(distinct))
        self._edges[row] = _NEVER
        self._edges[row, : len(distinct)] = distinct

    def watched(self, scopes: Vector) -> Vector:
        """Return the positions in `scopes` of those that are watched."""
        return np.flatnonzero(self._rows(scopes) >= 0)

    def crossing(self, scopes: Vector, before: Vector, after: Vector) -> Vector:
        """Return the positions of those whose use reached any of their edges on the way from before to after."""
        rows = self._rows(scopes)
        at = np.flatnonzero(rows >= 0)
        edges = self._edges[rows[at]]
        reached = (before[at, None] < edges) & (edges <= after[at, None])
        return at[reached.any(axis=1)]

    def _rows(self, scopes: Vector) -> Vector:
        rows = np.full(scopes.size, -1, dtype=np.int64)
        inside = scopes < self._row_of.size
        rows[inside] = self._row_of[scopes[inside]]
        return rows

    def _new_row(self) -> int:
        if self._free:
            return self._free.pop()
        if self._size == self._edges.shape[0]:
            self._edges = np.concatenate((self._edges, np.full_like(self._edges, _NEVER)))
        self._size += 1
        return self._size - 1

    def _widen(self, count: int) -> None:
        missing = count - self._edges.shape[1]
        if missing > 0:
            more = np.full((self._edges.shape[0], missing), _NEVER, dtype=np.int64)
            self._edges = np.concatenate((self._edges, more), axis=1)
