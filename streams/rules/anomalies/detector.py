"""The rules about identity at each barrier: calls since the last one go into profiles, and what crosses is found.

A finding is told once an hour for each scope and rule, and again when it becomes graver; which ones were told is
part of the profile, so a restart tells none again.
"""

import numpy as np

from tollmeter.streams.rules.anomalies import observe, shares
from tollmeter.streams.rules.anomalies.calls import Calls, NameHash, Sorted
from tollmeter.streams.rules.anomalies.findings import Finding, news, told
from tollmeter.streams.rules.anomalies.identity import (
    Verdict,
    dominating,
    has_past,
    has_shares,
    of_addresses,
    of_keys,
    of_models,
    of_networks,
)
from tollmeter.streams.rules.anomalies.layout import (
    ADDRESS_WIDTH,
    KEPT_WINDOWS,
    PER_DAY,
    VERSION,
    WIDTH,
    Mask,
    Matrix,
    Vector,
)
from tollmeter.streams.rules.anomalies.limits import Limits
from tollmeter.streams.rules.anomalies.profiles import Profiles, near
from tollmeter.streams.rules.anomalies.statistics import SERIES, Statistics
from tollmeter.streams.rules.anomalies.young import meet_models, meet_networks

LATE_MS = 600_000
"""Calls that arrive longer after they were made are counted, but suspected of nothing: a spool drains as a burst."""


class Detector:
    """The profiles of one partition, and the calls since its last barrier."""

    def __init__(self, limits: Limits, hash_of: NameHash, network_of: NameHash) -> None:
        self._limits, self._hash_of, self._network_of = limits, hash_of, network_of
        self.keys = Profiles(WIDTH, VERSION)
        self.addresses = Profiles(ADDRESS_WIDTH, VERSION)
        self.orgs = Profiles(shares.WIDTH, shares.VERSION)
        self.statistics = Statistics(limits, hash_of)
        self._waiting: list[Calls] = []
        self._forgot = 0

    @property
    def tables(self) -> dict[str, Profiles]:
        """The profiles by kind of scope, and the series of all kinds."""
        return {
            "api_key": self.keys,
            "client_ip": self.addresses,
            "org": self.orgs,
            SERIES: self.statistics.table,
        }

    @property
    def newest_stamp(self) -> int:
        """Highest stamp that was loaded."""
        return max(table.newest_stamp for table in self.tables.values())

    def note(self, calls: Calls) -> None:
        """Keep calls until the next barrier."""
        self._waiting.append(calls)

    def step(self, offset: int) -> list[Finding]:
        """Take the calls since the last barrier into the profiles as of `offset`; return what crossed."""
        if not self._waiting:
            return []
        calls, self._waiting = Calls.joined(self._waiting), []
        found: list[Finding] = []
        for window in np.unique(calls.window).tolist():
            now = calls.only(calls.window == window)
            found += self._keys(now, window, offset)
            found += self._addresses(now, window, offset)
            found += self._orgs(now, window, offset)
            found += self.statistics.step(now, offset)
            self._forget(window)
        return found

    def _forget(self, window: int) -> None:
        """Once a day: what is a day older than anybody looks back at."""
        if window >= self._forgot + PER_DAY:
            self._forgot = window
            for table in self.tables.values():
                table.forget_before(window - KEPT_WINDOWS - PER_DAY)

    def _keys(self, calls: Calls, window: int, offset: int) -> list[Finding]:
        by = Sorted.by(calls.key)
        if not by.scopes.size:
            return []
        rows, profiles, open_ = self._turned(self.keys, by, window, offset)
        limits, past = self._limits, has_past(profiles, self._limits)
        observe.add(profiles, calls, by, self._hash_of(calls.address))
        observe.add_bodies(profiles, calls, by)
        models = meet_models(profiles, past, calls, by, self._hash_of(calls.model), limits.model_price_factor)
        networks = meet_networks(profiles, past, calls, by, self._network_of(calls.address), limits)
        verdicts = of_keys(profiles, past, limits)
        verdicts += [of_models(profiles, models, limits), of_networks(profiles, networks, limits)]
        found = self._told(verdicts, profiles, open_, calls, by)
        self.keys.put(rows[open_], profiles[open_])
        return found

    def _addresses(self, calls: Calls, window: int, offset: int) -> list[Finding]:
        by = Sorted.by(np.where(self._hash_of(calls.address) == 0, -1, calls.address))
        if not by.scopes.size:
            return []
        rows, profiles, open_ = self._turned(self.addresses, by, window, offset)
        observe.add(profiles, calls, by, self._hash_of(calls.key))
        verdicts = of_addresses(profiles, has_past(profiles, self._limits), self._limits)
        found = self._told(verdicts, profiles, open_, calls, by)
        self.addresses.put(rows[open_], profiles[open_])
        return found

    def _turned(self, table: Profiles, by: Sorted, window: int, offset: int) -> tuple[Vector, Matrix, Mask]:
        """Return rows and copies of the profiles at a window, and which of them take its calls."""
        rows = table.rows(by.scopes)
        profiles = table.get(rows)
        open_ = table.open(rows, offset) & near(profiles, window)
        observe.turn(profiles, window)
        return rows, profiles, open_

    def _told(self, verdicts: list[Verdict], profiles: Matrix, open_: Mask, calls: Calls, by: Sorted) -> list[Finding]:
        found = []
        for verdict in verdicts:
            found += told(verdict, news(verdict, profiles, open_), profiles, calls, by)
        return found

    def _orgs(self, calls: Calls, window: int, offset: int) -> list[Finding]:
        by = Sorted.by(calls.org)
        rows = self.orgs.rows(by.scopes)
        orgs = self.orgs.get(rows)
        open_ = self.orgs.open(rows, offset) & near(orgs, window)
        shares.turn(orgs, window)
        called = shares.add(orgs, by.places, self._hash_of(calls.key)[by.order], calls.cost_nano[by.order])
        level, share, usual = dominating(orgs, self._limits.dominance)
        known = has_shares(orgs, self._limits.dominance)
        found = []
        for at, group in np.argwhere((level > 0) & called & open_[:, None]).tolist():
            bit = np.int64(1) << group
            if orgs[at, shares.RAISED] & bit:
                continue
            orgs[at, shares.RAISED] |= bit
            cost = int(orgs[at, shares.OPEN][group])
            figures = {
                "cost_nano": cost,
                "org_cost_nano": int(orgs[at, shares.OPEN].sum()),
                "share_pct": int(share[at, group]) // 10,
            }
            if known[at]:
                figures["usual_share_pct"] = int(usual[at, group]) // 10
            key, received = self._key_of(calls, int(by.scopes[at]), group)
            hour = int(orgs[at, shares.HOUR])
            found.append(Finding("dominance", int(level[at, group]), key, hour, received, figures, {}))
        self.orgs.put(rows[open_], orgs[open_])
        return found

    def _key_of(self, calls: Calls, org: int, group: int) -> tuple[int, int]:
        """Return the dearest key of a group among these calls, the first of equals, and when its last call came."""
        at = np.flatnonzero((calls.org == org) & (self._hash_of(calls.key) % shares.GROUPS == group) & (calls.key >= 0))
        by = Sorted.by(calls.key[at])
        cost, first = by.sums(calls.cost_nano[at])[:, 0], by.first(np.arange(at.size))
        best = int(np.lexsort((first, -cost))[0])
        return int(by.scopes[best]), int(by.greatest(calls.received_ms[at])[best])
