"""The calls between two barriers of the log, as arrays: what profiles are made of.

Barriers are places in the log, so what lies between two of them is the same in every replay, however it was batched.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Self

import numpy as np

from tollmeter.streams.rules.anomalies.layout import WINDOW_MINUTES, Mask, Vector


@dataclass(slots=True)
class Calls:
    """One entry per call. Scopes are numbers, negative for nobody; hashes are of names, 0 for none."""

    org: Vector
    key: Vector
    user: Vector
    address: Vector
    minute: Vector
    """Of the time that it is charged at, counted since 1970."""
    received_ms: Vector
    errors: Vector
    cost_nano: Vector
    """What it burns, whoever pays; at most, where its price is not known."""
    unknown: Vector
    """1 for a call without a known price."""
    input: Vector
    cached: Vector
    output: Vector
    body: Vector
    model: Vector
    ahead: Vector
    """1 for a call that says it was made more than five minutes after it came."""

    def only(self, rows: Mask | Vector) -> Self:
        """Return some of them."""
        return type(self)(*(getattr(self, part.name)[rows] for part in fields(self)))

    @classmethod
    def joined(cls, parts: list[Self]) -> Self:
        """Return them in the order of their parts."""
        if len(parts) == 1:
            return parts[0]
        return cls(*(np.concatenate([getattr(part, column.name) for part in parts]) for column in fields(cls)))

    @property
    def size(self) -> int:
        return self.org.size

    @property
    def window(self) -> Vector:
        """Return the ten minutes of each call."""
        return self.minute // WINDOW_MINUTES


@dataclass(frozen=True, slots=True)
class Sorted:
    """Calls ordered by scope: the distinct scopes, where each begins, and the order.

    Several scopes of each call may stand one after another: then a place in the order is of the call at the remainder.
    """

    scopes: Vector
    starts: Vector
    order: Vector

    @classmethod
    def by(cls, scope: Vector) -> Self:
        """Order calls by scope, those of nobody left out."""
        named = np.flatnonzero(scope >= 0)
        order = named[np.argsort(scope[named], kind="stable")]
        ordered = scope[order]
        starts = np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1]))) if order.size else order
        return cls(ordered[starts], starts, order)

    def sums(self, *columns: Vector) -> Vector:
        """Return the sum of each column by scope, as columns."""
        return self.sums_of(*(column[self.order % column.size] for column in columns))

    def sums_of(self, *ordered: Vector) -> Vector:
        """Return sums by scope of columns that are in this order already."""
        found: Vector = np.stack([np.add.reduceat(column, self.starts) for column in ordered], axis=1)
        return found

    def greatest(self, column: Vector) -> Vector:
        """Return the greatest value by scope."""
        found: Vector = np.maximum.reduceat(column[self.order % column.size], self.starts)
        return found

    def most(self, name: Vector, cost: Vector) -> tuple[Vector, Vector]:
        """Return by scope the name with the highest cost, and what it is ahead of all others together, 0 at least."""
        rows = self.order % name.size
        by_name = np.lexsort((name[rows], self.places))
        names, places, costs = name[rows][by_name], self.places[by_name], cost[rows][by_name]
        starts = np.flatnonzero(np.r_[True, (names[1:] != names[:-1]) | (places[1:] != places[:-1])])
        sums, names, places = np.add.reduceat(costs, starts), names[starts], places[starts]
        best = np.lexsort((names, sums, places))
        top = best[np.searchsorted(places[best], np.arange(self.scopes.size), side="right") - 1]
        total = np.add.reduceat(cost[rows], self.starts)
        return names[top], np.maximum(2 * sums[top] - total, 0)

    def first(self, column: Vector) -> Vector:
        """Return the value of the first call of each scope."""
        return column[self.order[self.starts]]

    @property
    def places(self) -> Vector:
        """The position in `scopes` of each call in `order`."""
        sizes = np.diff(np.append(self.starts, self.order.size))
        return np.repeat(np.arange(self.scopes.size), sizes)


NameHash = Callable[[Vector], Vector]
"""Scope numbers to hashes of their names, the same on every machine."""
