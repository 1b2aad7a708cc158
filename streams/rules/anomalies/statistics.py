"""The series of all scopes of a partition: keys, users, addresses and organisations in one table, stepped together."""

from dataclasses import replace

import numpy as np

from tollmeter.streams.rules.anomalies import series
from tollmeter.streams.rules.anomalies.calls import Calls, NameHash, Sorted
from tollmeter.streams.rules.anomalies.findings import Finding, news, told
from tollmeter.streams.rules.anomalies.layout import WINDOW_MINUTES, Mask, Matrix, Vector
from tollmeter.streams.rules.anomalies.limits import Limits
from tollmeter.streams.rules.anomalies.profiles import Profiles, near
from tollmeter.streams.rules.anomalies.unusual import mark, of_series

SERIES = "series"
"""The table's name among the detector's."""


class Statistics:
    """One row per scope. What is one key's matter of an address or organisation is told of the key alone.

    What is one key's of a user names the key: people hear of it by the key if that is told of, and else of the user,
    who may be one of many behind it.
    """

    def __init__(self, limits: Limits, hash_of: NameHash) -> None:
        self._limits, self._hash_of = limits, hash_of
        self.table = Profiles(series.WIDTH, series.VERSION, {series.WIDTH_1: series.of_version_1})

    def step(self, calls: Calls, offset: int) -> list[Finding]:
        """Add calls, minute by minute; return what is news."""
        found: list[Finding] = []
        for minute in np.unique(calls.minute).tolist():
            found += self._minute(calls.only(calls.minute == minute), minute, offset)
        return found

    def _minute(self, calls: Calls, minute: int, offset: int) -> list[Finding]:
        address = np.where(self._hash_of(calls.address) == 0, -1, calls.address)
        user = np.where(self._hash_of(calls.user) == 0, -1, calls.user)
        by = Sorted.by(np.concatenate((calls.key, user, address, calls.org)))
        if not by.scopes.size:
            return []
        at = self.table.rows(by.scopes)
        rows = self.table.get(at)
        open_ = self.table.open(at, offset) & near(rows, minute // WINDOW_MINUTES)
        series.turn(rows, minute)
        sums = by.sums(np.ones(calls.size, dtype=np.int64), calls.cost_nano, calls.input, calls.output)
        series.add(rows, sums)
        series.weigh(rows, *by.most(self._hash_of(calls.key), calls.cost_nano))
        verdict = of_series(rows, self._limits)
        fresh = news(verdict, rows, open_)
        found: list[Finding] = []
        if fresh.any():
            keys, users = np.isin(by.scopes, calls.key), np.isin(by.scopes, user)
            of_one = self._of_one_key(rows) & ~keys
            fresh &= ~of_one | users
            verdict = replace(verdict, example=self._example(rows, calls, by, fresh & of_one), shows=("key",))
            mark(rows, fresh, self._limits)
            for some in (keys, ~keys):  # whoever hears of a key knows whose matter a user's is
                found += told(verdict, fresh & some, rows, calls, by)
        self.table.put(at[open_], rows[open_])
        return found

    def _of_one_key(self, rows: Matrix) -> Mask:
        """Tell of which rows one key has most of the open window: of 60 % it is 20 % ahead of all others together."""
        least = 2 * self._limits.unusual_use.one_key_pct - 100
        found: Mask = rows[:, series.TOP_WEIGHT] * 100 >= rows[:, series.COST] * least
        found &= rows[:, series.TOP_KEY] != 0
        return found

    def _example(self, rows: Matrix, calls: Calls, by: Sorted, users: Mask) -> Vector:
        """Return by user a call of the key that most of the open window is of, -1 for none among these."""
        example, hashes = np.full(by.scopes.size, -1, dtype=np.int64), self._hash_of(calls.key)
        for place in np.flatnonzero(users).tolist():
            its = np.flatnonzero((calls.user == by.scopes[place]) & (hashes == rows[place, series.TOP_KEY]))
            example[place] = its[0] if its.size else -1
        return example
