"""The rules about identity at each barrier: calls since the last one go into profiles, and what crosses is found.

A finding is told once an hour for each scope and rule, and once more when it becomes critical; which ones were told is
part of the profile, so a restart tells none again.
"""

from dataclasses import dataclass

import numpy as np

from tollmeter.streams.rules.anomalies import observe, shares
from tollmeter.streams.rules.anomalies.calls import Calls, NameHash, Sorted
from tollmeter.streams.rules.anomalies.identity import Verdict, dominating, of_keys
from tollmeter.streams.rules.anomalies.layout import (
    HOUR,
    KEPT_WINDOWS,
    PER_DAY,
    RAISED,
    VERSION,
    WIDTH,
    WINDOW,
    Mask,
    Matrix,
    Vector,
)
from tollmeter.streams.rules.anomalies.limits import Limits
from tollmeter.streams.rules.anomalies.profiles import Profiles

LATE_MS = 600_000
"""Calls that arrive longer after they were made are counted, but suspected of nothing: a spool drains as a burst."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What a rule found of a scope in an hour. `figures` are JSON-ready, with units in their names."""

    kind: str
    critical: bool
    scope: int
    hour: int
    received_ms: int
    figures: dict[str, int]


class Detector:
    """The profiles of one partition, and the calls since its last barrier."""

    def __init__(self, limits: Limits, hash_of: NameHash) -> None:
        self._limits, self._hash_of = limits, hash_of
        self.profiles = Profiles(WIDTH, VERSION)
        self.orgs = Profiles(shares.WIDTH, shares.VERSION)
        self._waiting: list[Calls] = []
        self._forgot = 0

    @property
    def newest_stamp(self) -> int:
        """Highest stamp that was loaded."""
        return max(self.profiles.newest_stamp, self.orgs.newest_stamp)

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
            found += self._orgs(now, window, offset)
            self._forget(window)
        return found

    def _forget(self, window: int) -> None:
        """Once a day: what is a day older than anybody looks back at."""
        if window >= self._forgot + PER_DAY:
            self._forgot = window
            for table in (self.profiles, self.orgs):
                table.forget_before(window - KEPT_WINDOWS - PER_DAY)

    def _keys(self, calls: Calls, window: int, offset: int) -> list[Finding]:
        by = Sorted.by(calls.key)
        if not by.scopes.size:
            return []
        rows = self.profiles.rows(by.scopes)
        profiles = self.profiles.get(rows)
        open_ = self.profiles.open(rows, offset) & (profiles[:, WINDOW] <= window)
        observe.turn(profiles, window)
        observe.add(profiles, calls, by, self._hash_of(calls.address))
        verdicts = of_keys(profiles, self._limits)
        received = by.greatest(calls.received_ms)
        found = [one for verdict in verdicts for one in self._told(verdict, profiles, open_, by.scopes, received)]
        self.profiles.put(rows[open_], profiles[open_])
        return found

    def _told(self, verdict: Verdict, profiles: Matrix, open_: Mask, scopes: Vector, received: Vector) -> list[Finding]:
        """Return the findings of one rule that are news, and mark them as told."""
        found = []
        for at in np.flatnonzero(verdict.fired & open_).tolist():
            critical = int(verdict.cost_nano[at]) >= self._limits.critical_nano
            bits = verdict.bit * (3 if critical else 1)
            if int(profiles[at, RAISED]) & bits == bits:
                continue
            profiles[at, RAISED] |= bits
            figures = {name: int(column[at]) for name, column in verdict.figures.items()}
            hour = int(profiles[at, HOUR])
            found.append(Finding(verdict.kind, critical, int(scopes[at]), hour, int(received[at]), figures))
        return found

    def _orgs(self, calls: Calls, window: int, offset: int) -> list[Finding]:
        by = Sorted.by(calls.org)
        rows = self.orgs.rows(by.scopes)
        orgs = self.orgs.get(rows)
        open_ = self.orgs.open(rows, offset) & (orgs[:, shares.WINDOW] <= window)
        shares.turn(orgs, window)
        called = shares.add(orgs, by.places, self._hash_of(calls.key)[by.order], calls.cost_nano[by.order])
        fired, share, usual = dominating(orgs, self._limits.dominance)
        found = []
        for at, group in np.argwhere(fired & called & open_[:, None]).tolist():
            bit = np.int64(1) << group
            if orgs[at, shares.RAISED] & bit:
                continue
            orgs[at, shares.RAISED] |= bit
            cost = int(orgs[at, shares.OPEN][group])
            figures = {
                "cost_nano": cost,
                "org_cost_nano": int(orgs[at, shares.OPEN].sum()),
                "share_pct": int(share[at, group]) // 10,
                "usual_share_pct": int(usual[at, group]) // 10,
            }
            key, received = self._key_of(calls, int(by.scopes[at]), group)
            critical = cost >= self._limits.critical_nano and bool(usual[at].any())
            found.append(Finding("dominance", critical, key, int(orgs[at, shares.HOUR]), received, figures))
        self.orgs.put(rows[open_], orgs[open_])
        return found

    def _key_of(self, calls: Calls, org: int, group: int) -> tuple[int, int]:
        """Return the dearest key of a group among these calls, the first of equals, and when its last call came."""
        at = np.flatnonzero((calls.org == org) & (self._hash_of(calls.key) % shares.GROUPS == group) & (calls.key >= 0))
        by = Sorted.by(calls.key[at])
        cost, first = by.sums(calls.cost_nano[at])[:, 0], by.first(np.arange(at.size))
        best = int(np.lexsort((first, -cost))[0])
        return int(by.scopes[best]), int(by.greatest(calls.received_ms[at])[best])
