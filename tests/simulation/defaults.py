"""Defaults for whoever has no policy: set, changed and deleted in flight, of users and keys, and of sessions and runs.

These last ones only production's own fold knows; both folds know the others.
"""

import random
from typing import Any

from tests.simulation.kernels import TARGETS
from tests.simulation.line import Line
from tollmeter.schemas import topics
from tollmeter.schemas.control import PolicyDelete, PolicySet
from tollmeter.schemas.envelope import control_record
from tollmeter.schemas.policy import Policy

ORGS = ("acme", "umbra", "wayne")
NAMES = {"user": "u2", "api_key": "k2", "session": "s1", "run": "r2"}


class Defaults:
    """Schedules control records in every third seed: the others stay as they were. `rng` is its own."""

    def __init__(self, line: Line, seed: int) -> None:
        self._line, self._rng, self._on = line, random.Random(f"{seed} defaults"), seed % 3 == 0
        self._kinds = ("user", "api_key", "session", "session", "run") if line.columns else ("user", "api_key")
        self._set: list[Policy] = []

    def schedule(self, span_s: float) -> None:
        """Set some at once or at any time, change them, and take some away again."""
        rng = self._rng
        if rng.random() < 0.3 or not self._on:
            return
        for _ in range(rng.randint(1, 2)):
            self._put()
        for _ in range(rng.randint(0, 4)):
            self._line.world.at(rng.random() * span_s, rng.choice((self._put, self._put, self._own, self._delete)))

    def _put(self) -> None:
        """Set or change a default."""
        rng = self._rng
        kind = rng.choice(self._kinds)
        daily, monthly = rng.choice(((8_000, None), (15_000, 60_000), (None, 25_000)))
        self._control(self._policy(kind, "", daily, monthly))

    def _own(self) -> None:
        """Give somebody a policy of its own, that wins whole: often one without the default's period."""
        rng = self._rng
        kind = rng.choice(self._kinds)
        daily, monthly = rng.choice(((None, None), (40_000, None), (None, 90_000)))
        self._control(self._policy(kind, NAMES[kind], daily, monthly))

    def _policy(self, kind: str, name: str, daily: int | None, monthly: int | None) -> Policy:
        applies: Any = "pool" if name else "each_member"
        scope: Any = kind
        org = self._rng.choice(ORGS)
        limits = {"daily_limit_micro": daily, "monthly_limit_micro": monthly}
        return Policy(org_id=org, scope=scope, name=name, applies=applies, alert_pcts=(50, 100), **limits)

    def _control(self, policy: Policy) -> None:
        self._set.append(policy)
        self._append(PolicySet(policy=policy), policy.org_id)

    def _delete(self) -> None:
        if self._set:
            policy = self._rng.choice(self._set)
            self._append(PolicyDelete(policy_id=policy.policy_id), policy.org_id)

    def _append(self, body: Any, org: str) -> None:
        value, headers = control_record(body)
        self._line.broker.append(topics.PRICED, topics.org_partition(org, TARGETS), None, value, headers)
