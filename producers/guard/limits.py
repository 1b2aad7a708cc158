"""Which limits hold for a call: resolved once per combination of names, looked up until a policy changes."""

import threading
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from tollmeter.producers.guard.accounts import UNITS, Accounts, Bound
from tollmeter.schemas.policy import ASKED_COLUMNS, MEMBER_SCOPES, Member, Policy
from tollmeter.schemas.spend import spend_key
from tollmeter.streams.rules.limits.adjusted import NEVER_MS, adjusted, next_end_ms
from tollmeter.streams.rules.limits.policies import Budget, Groups, effective, pool_limits

REMEMBERED = 20_000
"""Combinations of names kept per organisation; a flood of new ones starts the memory afresh."""
ENDED_AT_ONCE = 500
_PERIODS = ("day", "week", "month")
_MEASURES = ("money", "tokens", "requests")
MONEY = 3
"""The first units are money."""

_DEFAULTS = [(kind, "") for kind in MEMBER_SCOPES if kind != "user"]
Caller = tuple[Any, ...]
"""user, groups, api_key_id, client_ip, agent, model_id, provider_id, tags, version, feature, session, run."""


class Binding(NamedTuple):
    """The limits of a call, the daily ones first; and those that hold for a call that is free."""

    bounds: tuple[Bound, ...]
    counted: tuple[Bound, ...]
    foreign: bool
    """Some limit is in another currency than USD."""


NOTHING = Binding((), (), False)


class _Org:
    """The policies of one organisation by scope, and what was resolved from them."""

    def __init__(self) -> None:
        self.policies: dict[tuple[str, str], dict[str, Policy]] = {}
        self.versions: set[str] = set()
        """Names of models with a date that had a policy."""
        self.asks = False
        """Whether a policy is about sessions or runs. Where none is, callers that differ in nothing else are one."""
        self.known: dict[Caller, Binding] = {}
        self.until_ms = NEVER_MS
        """When a limit of these is otherwise by itself, and what was resolved no longer holds."""
        self.users: dict[tuple[str, tuple[str, ...]], tuple[tuple[Budget, ...], tuple[str, ...]]] = {}

    def forget(self) -> None:
        """What was resolved no longer holds. A resolver that is still at work fills the dict that we let go."""
        self.users, self.known = {}, {}


class LimitView:
    """Policies and members of `usage.policies`. `find` for any thread; its lock is taken for new combinations only."""

    def __init__(self, accounts: Accounts) -> None:
        self._accounts = accounts
        self._orgs: dict[str, _Org] = {}
        self._org_of: dict[str, Policy] = {}
        self._groups = Groups()
        self.renew_lock()

    def renew_lock(self) -> None:
        """Take a lock of our own: in the child of a fork the parent's may be held for ever."""
        self._lock = threading.Lock()

    @property
    def policies(self) -> int:
        """How many policies are in force."""
        return len(self._org_of)

    def set_policy(self, policy: Policy) -> None:
        """Take over a policy in place of any with the same id."""
        with self._lock:
            org = self._orgs.setdefault(policy.org_id, _Org())
            org.policies.setdefault((policy.scope, policy.name), {})[policy.policy_id] = policy
            if policy.scope == "version":
                org.versions.add(policy.name)
            org.asks |= policy.scope in ASKED_COLUMNS
            self._org_of[policy.policy_id] = policy
            org.forget()

    def delete_policy(self, policy_id: str) -> None:
        """Forget a policy; an unknown one is no error."""
        with self._lock:
            policy = self._org_of.pop(policy_id, None)
            if policy is not None:
                org = self._orgs[policy.org_id]
                org.policies[policy.scope, policy.name].pop(policy_id)
                org.forget()

    def set_member(self, member: Member) -> None:
        """Take over a member in place of any with the same id."""
        with self._lock:
            self._groups.put(member)
            self._forget_of(member.org_id)

    def delete_member(self, member_id: str) -> None:
        """Forget a member; an unknown one is no error."""
        with self._lock:
            self._groups.delete(member_id)
            self._forget_of(member_id.partition("/")[0].replace("%2F", "/").replace("%25", "%"))

    def groups_of(self, org_id: str, user: str, given: Collection[str]) -> tuple[str, ...]:
        """Return all groups of a user, sorted: those of the membership and those that the call names."""
        with self._lock:
            return self._all_groups(org_id, user, given)

    def _all_groups(self, org_id: str, user: str, given: Collection[str]) -> tuple[str, ...]:
        return tuple(sorted({*self._groups.of(org_id, user), *self._groups.closure(org_id, given)}))

    def forget_ended(self, now_s: int) -> None:
        """Give up what is known of sessions and runs whose period is over, and whatever was resolved with it."""
        ended = self._accounts.passed_by(now_s)
        for begin in range(0, len(ended), ENDED_AT_ONCE):
            with self._lock:
                self._accounts.forget(ended[begin : begin + ENDED_AT_ONCE], now_s)
                for org in self._orgs.values():
                    org.known = {} if org.asks else org.known

    def _forget_of(self, org_id: str) -> None:
        org = self._orgs.get(org_id)
        if org is not None:
            org.forget()

    def find(self, org_id: str, caller: Caller, now_ms: int = 0) -> Binding:
        """Return the limits that hold for a call at a time (wall clock, milliseconds since 1970)."""
        org = self._orgs.get(org_id)
        if org is None:
            return NOTHING
        if not org.asks:
            caller = caller[:-2]
        if now_ms >= org.until_ms:
            with self._lock:
                self._forget_of(org_id)
        return org.known.get(caller) or self._resolve(org_id, org, caller, now_ms)

    def _resolve(self, org_id: str, org: _Org, caller: Caller, now_ms: int) -> Binding:
        with self._lock:
            self._adjust(org, now_ms)
            own, groups = self._user(org_id, org, caller[0], caller[1])
            shared = _pools(org_id, org, groups, caller)
            found = self._bind((*own, *shared))
            if len(org.known) >= REMEMBERED:
                org.known = {}
            org.known[caller] = found
            return found

    def _adjust(self, org: _Org, now_ms: int) -> None:
        """Put the limits in force that hold now, once after each change."""
        if org.known or org.users:
            return
        raw = [self._org_of[key] for named in org.policies.values() for key in named]
        for policy in raw:
            org.policies[policy.scope, policy.name][policy.policy_id] = adjusted(policy, now_ms)
        org.until_ms = min((next_end_ms(policy, now_ms) for policy in raw), default=NEVER_MS)

    def _user(
        self, org_id: str, org: _Org, user: str, given: tuple[str, ...]
    ) -> tuple[tuple[Budget, ...], tuple[str, ...]]:
        """Return a user's own limits and all his groups: those of the membership and those that the call names."""
        found = org.users.get((user, given))
        if found is None:
            groups = self._all_groups(org_id, user, given)
            scopes = [("org", ""), ("user", user), ("user", ""), *(("group", name) for name in groups)]
            rules = [policy for scope in scopes for policy in org.policies.get(scope, {}).values()]
            if len(org.users) >= REMEMBERED:
                org.users = {}
            found = org.users[user, given] = effective(rules, org_id, user, groups).budgets, groups
        return found

    def _bind(self, budgets: Collection[Budget]) -> Binding:
        bounds = tuple(
            Bound(
                self._accounts.account(spend_key(budget.org_id, budget.scope, budget.name, budget.period, budget.unit)),
                budget.amount,
                UNITS.index(budget.unit),
                budget,
            )
            for budget in sorted(budgets, key=_order)
        )
        counted = tuple(bound for bound in bounds if bound.unit >= MONEY)
        return Binding(bounds, counted, any(0 < bound.unit < MONEY for bound in bounds))


def _pools(org_id: str, org: _Org, groups: Collection[str], caller: Caller) -> tuple[Budget, ...]:
    _, _, api_key, client_ip, agent, model, provider, tags, version, feature, *asked = caller
    named = [
        *(("group", name) for name in groups),
        ("api_key", api_key),
        ("client_ip", client_ip),
        ("agent", agent),
        ("model", model),
        ("provider", provider),
        *(("version", name) for name in org.versions if version.may_be(name, model)),
        ("feature", feature),
        *zip(ASKED_COLUMNS, asked, strict=False),
        *(("tag", name) for name in tags),
    ]
    named = [("org", ""), *(scope for scope in named if scope[1])]
    rules = [policy for scope in named + _DEFAULTS for policy in org.policies.get(scope, {}).values()]
    return pool_limits(rules, org_id, set(named)) if rules else ()


def _order(budget: Budget) -> tuple[int, int, int, str]:
    """Daily limits first, then by length; money before counts; the smallest first."""
    period = budget.limit.period
    rank = _PERIODS.index(period) if period in _PERIODS else len(_PERIODS)
    return rank, _MEASURES.index(budget.limit.measure), budget.amount, budget.policy_id


def tag_names(tags: Mapping[str, str] | None) -> tuple[str, ...]:
    """Return the names of the tag scopes of a call."""
    return tuple(sorted(f"{key}={value}" for key, value in tags.items())) if tags else ()
