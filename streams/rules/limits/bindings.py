"""Bindings: which budgets hold for which scope follows from the policies and members read so far, and nothing else.

A pool policy binds its own scope, an each_member policy every user it holds for, a default every member of its scope
that has no policy. A change touches the scopes that it can concern, and says for each which budgets it had and has now.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from tollmeter.schemas.policy import ASKED_COLUMNS, MEMBER_SCOPES, Member, Policy
from tollmeter.streams.rules.limits.adjusted import adjusted, next_end_ms
from tollmeter.streams.rules.limits.budgets import UNREACHED, Watchlist, edges_of, level_of
from tollmeter.streams.rules.limits.policies import Budget, Groups, budgets_of, effective, nameable, pool_limits
from tollmeter.streams.rules.windows.scopes import Scopes
from tollmeter.streams.rules.windows.totals import LEVELS, Vector

MEMBER = "member:"
"""What the ids of members begin with where they stand beside those of policies."""


class Change(NamedTuple):
    """The budgets of a scope before and after a control record."""

    scope: int
    before: tuple[Budget, ...]
    after: tuple[Budget, ...]


@dataclass(slots=True)
class _Org:
    """The policies of one organisation, by what they bind."""

    shared: dict[str, Policy] = field(default_factory=dict)
    own: dict[str, dict[str, Policy]] = field(default_factory=dict)
    pools: dict[tuple[str, str], dict[str, Policy]] = field(default_factory=dict)
    defaults: dict[str, dict[str, Policy]] = field(default_factory=lambda: {kind: {} for kind in MEMBER_SCOPES})
    members: dict[str, dict[str, int]] = field(default_factory=lambda: {kind: {} for kind in MEMBER_SCOPES})
    """By kind the numbers of the scopes that a default may bind."""

    def place(self, policy: Policy) -> dict[str, Policy]:
        """Return the collection that a policy belongs to."""
        if policy.is_default:
            return self.defaults[policy.scope]
        if policy.scope == "user":
            return self.own.setdefault(policy.name, {})
        if policy.applies == "each_member":
            return self.shared
        return self.pools.setdefault((policy.scope, policy.name), {})

    def limits_each(self, kind: str) -> bool:
        """Tell whether every member of this kind may have a limit of its own."""
        return bool(self.defaults.get(kind)) or (kind == "user" and bool(self.shared))


class Budgets:
    """The policies and members of one partition, and the budgets that they bind to its scopes."""

    def __init__(self, scopes: Scopes) -> None:
        self.policies: dict[str, Policy] = {}
        self.groups = Groups()
        self._scopes = scopes
        self._orgs: dict[str, _Org] = {}
        self._bound: dict[int, tuple[Budget, ...]] = {}
        self._lists: dict[str, dict[str, Watchlist]] = {}
        self._extra: dict[str, dict[int, tuple[str, ...]]] = {}
        self.tags: dict[tuple[str, str], int] = {}
        """(org_id, "key=value") of the tags that have a budget, with the number of their scope."""
        self.asked: dict[str, set[str]] = {kind: set() for kind in ASKED_COLUMNS}
        """By kind the organisations with a policy for sessions or runs."""
        self.now_ms = 0
        """The time that adjustments are judged by: of the log, as it stood at the last barrier."""

    def set_policy(self, policy: Policy) -> list[Change]:
        """Take over a policy in place of the one with its id."""
        self.policies[policy.policy_id] = policy
        return self._put(policy)

    def expire(self, now_ms: int) -> list[tuple[str, list[Change]]]:
        """Let adjustments end that are over at a time, which never falls; return by organisation what that changes."""
        before, self.now_ms = self.now_ms, max(now_ms, self.now_ms)
        over = [
            policy
            for key, policy in sorted(self.policies.items())
            if policy.adjustments and before < next_end_ms(policy, before) <= self.now_ms
        ]
        return [(policy.org_id, self._put(policy)) for policy in over]

    def _put(self, policy: Policy) -> list[Change]:
        self._org(policy.org_id).place(policy)[policy.policy_id] = adjusted(policy, self.now_ms)
        self._note_asked(policy)
        return self._rebind(policy)

    def delete_policy(self, policy_id: str) -> list[Change]:
        """Forget a policy; an unknown one is no error."""
        policy = self.policies.pop(policy_id, None)
        if policy is None:
            return []
        del self._org(policy.org_id).place(policy)[policy_id]
        self._note_asked(policy)
        return self._rebind(policy)

    def set_member(self, member: Member) -> list[Change]:
        """Take over who is in which groups."""
        self.groups.put(member)
        return self._rebind_all(member.org_id, "user")

    def delete_member(self, member_id: str, org_id: str) -> list[Change]:
        """Forget a member; an unknown one is no error."""
        self.groups.delete(member_id)
        return self._rebind_all(org_id, "user")

    def restore(self, rules: Iterable[Policy | Member], now_ms: int = 0) -> None:
        """Take over policies and members in any order, and bind every scope once, as of a time."""
        self.now_ms = max(now_ms, self.now_ms)
        for rule in rules:
            if isinstance(rule, Member):
                self.groups.put(rule)
            else:
                self.policies[rule.policy_id] = rule
                self._org(rule.org_id).place(rule)[rule.policy_id] = adjusted(rule, self.now_ms)
                self._note_asked(rule)
        for policy in self.policies.values():
            if policy.applies == "pool":
                self._rebind(policy)
        self.look_at_new_scopes()

    def document(self, key: str) -> Policy | Member:
        """Return the policy, or the member under MEMBER + member_id."""
        return self.groups.get(key.removeprefix(MEMBER)) if key.startswith(MEMBER) else self.policies[key]

    def look_at_new_scopes(self) -> None:
        """Bind the limits for each member to those that have appeared since the last call."""
        for number in self._scopes.take_new():
            org_id, kind, name = self._scopes.names[number]
            if kind in MEMBER_SCOPES:
                org = self._org(org_id)
                org.members[kind][name] = number
                if org.limits_each(kind):
                    self._bind(number, self._of_member(org_id, kind, name))

    # ------------------------------------------------------------------ what is bound

    def of(self, scope: int) -> tuple[Budget, ...]:
        """Return the budgets of a scope."""
        return self._bound.get(scope, ())

    def limits_each(self, org_id: str, kind: str) -> bool:
        """Tell whether every member of this kind in the organisation may have a limit of its own."""
        return org_id in self._orgs and self._orgs[org_id].limits_each(kind)

    def members(self, org_id: str, kind: str) -> dict[str, int]:
        """Return the members of a kind that are known, with the numbers of their scopes."""
        return self._org(org_id).members[kind]

    def has_own(self, org_id: str, kind: str, name: str) -> bool:
        """Tell whether a session or run has a policy of its own."""
        return bool(self._org(org_id).pools.get((kind, name)))

    def leave(self, number: int) -> None:
        """Forget a session or run that is over."""
        org_id, kind, name = self._scopes.names[number]
        self._org(org_id).members[kind].pop(name, None)
        self._bind(number, ())

    def asks_for_more(self, org_id: str) -> bool:
        """Tell whether an organisation has totals that begin with a policy."""
        return bool(self._extra.get(org_id)) or any(org_id in orgs for orgs in self.asked.values())

    def default_levels(self, org_id: str) -> set[tuple[str, str]]:
        """Return kind and level of the totals that every session or run of an organisation has."""
        org = self._org(org_id)
        return {
            (kind, level_of(budget))
            for kind in ASKED_COLUMNS
            for policy in org.defaults[kind].values()
            for budget in budgets_of(policy, kind, "", policy.warn_threshold_pct)
        }

    @property
    def scopes(self) -> list[int]:
        """All scopes that have a budget, in the order of their numbers."""
        return sorted(self._bound)

    def lists(self, level: str) -> Iterable[tuple[str, Watchlist]]:
        """Return unit and watchlist of all budgets of a level."""
        return self._lists.get(level, {}).items()

    @property
    def extra_levels(self) -> list[str]:
        """Levels beyond those that every scope has: other zones, weeks, 15-minute windows."""
        return sorted(level for level in self._lists if level not in LEVELS)

    def bound_at(self, level: str, scopes: Vector) -> Vector:
        """Return the positions in `scopes` of those that have a budget of this level in any unit."""
        mask = np.zeros(scopes.size, dtype=bool)
        for _, watchlist in self.lists(level):
            mask[watchlist.watched(scopes)] = True
        return np.flatnonzero(mask)

    def extras(self, org_id: str) -> dict[int, tuple[str, ...]]:
        """Return the scopes of an organisation whose totals begin with a policy, and at which levels they do."""
        return self._extra.get(org_id, {})

    # ------------------------------------------------------------------ binding

    def _note_asked(self, policy: Policy) -> None:
        if policy.scope in ASKED_COLUMNS:
            org = self._org(policy.org_id)
            named = any(rules for (kind, _), rules in org.pools.items() if kind == policy.scope)
            known = self.asked[policy.scope]
            (known.add if named or org.defaults[policy.scope] else known.discard)(policy.org_id)

    def _org(self, org_id: str) -> _Org:
        if org_id not in self._orgs:
            self._orgs[org_id] = _Org()
        return self._orgs[org_id]

    def _rebind(self, policy: Policy) -> list[Change]:
        """Bind anew whatever a changed policy can concern."""
        if policy.is_default:
            return self._rebind_all(policy.org_id, policy.scope)
        if policy.applies == "each_member":
            return self._rebind_all(policy.org_id, "user")
        number = self._scopes.number((policy.org_id, policy.scope, policy.name))
        self.look_at_new_scopes()
        return self._bind(number, self._of_member(policy.org_id, policy.scope, policy.name))

    def _rebind_all(self, org_id: str, kind: str) -> list[Change]:
        self.look_at_new_scopes()
        changes: list[Change] = []
        for name, number in sorted(self._org(org_id).members[kind].items()):
            changes += self._bind(number, self._of_member(org_id, kind, name))
        return changes

    def _of_member(self, org_id: str, kind: str, name: str) -> tuple[Budget, ...]:
        org = self._org(org_id)
        if kind == "user":
            deciding = org.own.get(name) or org.shared | org.defaults["user"]
            if not deciding:
                return ()
            found = effective(deciding.values(), org_id, name, self.groups.of(org_id, name)).budgets
            return found + nameable(list(deciding.values()), org_id, name, found)
        rules = (org.pools.get((kind, name)) or org.defaults.get(kind, {})).values()
        return pool_limits(rules, org_id, {(kind, name)}) if rules else ()

    def _bind(self, scope: int, budgets: tuple[Budget, ...]) -> list[Change]:
        before = self._bound.get(scope, ())
        if before == budgets:
            return []
        for level, unit in {(level_of(budget), budget.unit) for budget in before + budgets}:
            amounts = [
                edge.amount
                for budget in budgets
                if (level_of(budget), budget.unit) == (level, unit)
                for edge in edges_of(budget) or (UNREACHED,)
            ]
            lists = self._lists.setdefault(level, {})
            lists.setdefault(unit, Watchlist()).set(scope, amounts)
        self._note_extra(scope, budgets)
        if budgets:
            self._bound[scope] = budgets
        else:
            del self._bound[scope]
        return [Change(scope, before, budgets)]

    def _note_extra(self, scope: int, budgets: tuple[Budget, ...]) -> None:
        org, kind, name = self._scopes.names[scope]
        levels = {level_of(budget) for budget in budgets}
        if kind == "tag":
            self.tags.pop((org, name), None)
            if levels:
                self.tags[org, name] = scope
        else:
            levels.difference_update(LEVELS)
        if levels:
            self._extra.setdefault(org, {})[scope] = tuple(sorted(levels))
        else:
            self._extra.get(org, {}).pop(scope, None)
