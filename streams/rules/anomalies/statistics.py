"""The series of all scopes of a partition: keys, users, addresses and organisations in one table, stepped together."""

import numpy as np

from tollmeter.streams.rules.anomalies import series
from tollmeter.streams.rules.anomalies.calls import Calls, NameHash, Sorted
from tollmeter.streams.rules.anomalies.findings import Finding, news, told
from tollmeter.streams.rules.anomalies.limits import Limits
from tollmeter.streams.rules.anomalies.profiles import Profiles
from tollmeter.streams.rules.anomalies.unusual import mark, of_series

SERIES = "series"
"""The table's name among the detector's."""


class Statistics:
    """One row per scope; what is one key's matter is told of the key alone."""

    def __init__(self, limits: Limits, hash_of: NameHash) -> None:
        self._limits, self._hash_of = limits, hash_of
        self.table = Profiles(series.WIDTH, series.VERSION)

    def step(self, calls: Calls, window: int, offset: int) -> list[Finding]:
        """Add the calls of one window; return what is news."""
        address = np.where(self._hash_of(calls.address) == 0, -1, calls.address)
        user = np.where(self._hash_of(calls.user) == 0, -1, calls.user)
        by = Sorted.by(np.concatenate((calls.key, user, address, calls.org)))
        if not by.scopes.size:
            return []
        at = self.table.rows(by.scopes)
        rows = self.table.get(at)
        open_ = self.table.open(at, offset) & (rows[:, series.WINDOW] <= window)
        series.turn(rows, window)
        sums = by.sums(np.ones(calls.size, dtype=np.int64), calls.cost_nano, calls.input, calls.output)
        series.add(rows, sums)
        verdict = of_series(rows, self._limits)
        fresh = news(verdict, rows, open_)
        keys = np.isin(by.scopes, calls.key)
        for place in np.flatnonzero(fresh & ~keys).tolist():
            fresh[place] = not self._is_of_one_key(calls, by.scopes[place])
        mark(rows, fresh, self._limits)
        found = told(verdict, fresh, rows, calls, by)
        self.table.put(at[open_], rows[open_])
        return found

    def _is_of_one_key(self, calls: Calls, scope: int) -> bool:
        """Tell whether most of what a scope spends is one key's: then it is the key's matter."""
        ours = (calls.user == scope) | (calls.address == scope) | (calls.org == scope)
        cost, by = calls.cost_nano[ours], Sorted.by(calls.key[ours])
        most = int(by.sums(cost).max(initial=0)) if by.scopes.size else 0
        return most * 100 >= int(cost.sum()) * self._limits.unusual_use.one_key_pct
