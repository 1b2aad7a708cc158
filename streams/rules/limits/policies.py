"""Resolution: which budgets bind a user or a call follows from policies and membership alone, whatever their order.

A user's own policy wins whole. Otherwise, for each kind of limit, the smallest among the each_member policies of the
organisation, of all the user's groups, and the default for users wins. So it is with the own policies of a key, agent,
session or run, and the default for these. Pool policies add up: each holds for itself.
"""

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, replace
from typing import Literal

from tollmeter.schemas.money import NANO_PER_MICRO
from tollmeter.schemas.policy import DEFAULT_WARN_PCT, MEMBER_SCOPES, Currency, Limit, Member, Policy
from tollmeter.schemas.spend import Unit, period_key

Reason = Literal["own_policy", "smaller_limit", "equal_limit"]


@dataclass(frozen=True, slots=True)
class Budget:
    """One limit and the scope whose spend it is compared with; for each_member that scope is the user."""

    org_id: str
    scope: str
    name: str
    limit: Limit
    currency: Currency
    timezone: str
    thresholds: tuple[int, ...]
    """Percentages that alert. Without one it alerts nobody: guards alone ask for it."""
    alert_remaining_micro: int | None
    policy_id: str
    """The policy that decided."""

    @property
    def applies(self) -> str:
        """Whether it is compared with what one member spends (each_member) or what all spend together (pool)."""
        return self.policy_id.split("/")[3]

    @property
    def by_default(self) -> bool:
        """Whether the policy that decided is the default for whoever has none of his own."""
        _, scope, name, applies, _ = self.policy_id.split("/")
        return not name and applies == "each_member" and scope in MEMBER_SCOPES

    @property
    def unit(self) -> Unit:
        """The currency of money, else what is counted."""
        return self.currency if self.limit.measure == "money" else self.limit.measure

    @property
    def period(self) -> str:
        """The kind of period: day@UTC, rolling24h@Europe/Berlin."""
        return period_key(self.limit.window, self.timezone)

    @property
    def amount(self) -> int:
        """The limit in the unit of spend rows: nano-units of the currency, or a count."""
        return self.limit.amount * NANO_PER_MICRO if self.limit.measure == "money" else self.limit.amount

    @property
    def kind(self) -> tuple[str, str]:
        """What two limits must share to be compared: period with its zone, and unit."""
        return self.period, self.unit


@dataclass(frozen=True, slots=True)
class Lost:
    """A limit that does not bind, and why: the member has a policy of its own, or another of its kind is in force."""

    budget: Budget
    reason: Reason
    to: str
    """The policy that it lost to."""


@dataclass(frozen=True, slots=True)
class Effective:
    """The limits of one user for himself, ordered by kind."""

    budgets: tuple[Budget, ...] = ()
    warn_threshold_pct: int = DEFAULT_WARN_PCT
    warn_policy_id: str | None = None
    """The policy that set the threshold; None where no policy applies."""
    lost: tuple[Lost, ...] = ()


class GroupCycleError(ValueError):
    """A group is inside itself; the text names the way round."""


class Groups:
    """Who is in which groups, nested ones included. Methods that read never fail, also on members that form a cycle."""

    def __init__(self, members: Iterable[Member] = ()) -> None:
        self._members = {member.member_id: member for member in members}
        self._direct = {(member.org_id, member.kind, member.name): member.groups for member in self._members.values()}
        self._closures: dict[tuple[str, str], tuple[str, ...]] = {}

    @property
    def members(self) -> tuple[Member, ...]:
        """All members in the order of their ids."""
        return tuple(self._members[key] for key in sorted(self._members))

    def get(self, member_id: str) -> Member:
        """Return a member. Raises `KeyError` for an unknown one."""
        return self._members[member_id]

    def put(self, member: Member) -> None:
        """Take over a member in place of any that it had."""
        self._members[member.member_id] = member
        self._direct[member.org_id, member.kind, member.name] = member.groups
        self._closures.clear()

    def delete(self, member_id: str) -> None:
        """Forget a member; an unknown one is no error."""
        member = self._members.pop(member_id, None)
        if member is not None:
            del self._direct[member.org_id, member.kind, member.name]
            self._closures.clear()

    def knows(self, org: str, user: str) -> bool:
        """Return whether the user is in the membership."""
        return (org, "user", user) in self._direct

    def of(self, org: str, user: str) -> tuple[str, ...]:
        """Return all groups of a user, sorted."""
        found = self._closures.get((org, user))
        if found is None:
            found = self._closures[org, user] = self.closure(org, self._direct.get((org, "user", user), ()))
        return found

    def closure(self, org: str, groups: Iterable[str]) -> tuple[str, ...]:
        """Return these groups and all that they are inside of, sorted."""
        waiting, found = list(groups), set[str]()
        while waiting:
            group = waiting.pop()
            if group not in found:
                found.add(group)
                waiting.extend(self._direct.get((org, "group", group), ()))
        return tuple(sorted(found))

    def check(self) -> None:
        """Raise `GroupCycleError` when a group is inside itself, also through other groups."""
        done: set[tuple[str, str]] = set()
        for org, kind, name in sorted(self._direct):
            if kind == "group":
                self._walk(org, name, done)

    def _walk(self, org: str, start: str, done: set[tuple[str, str]]) -> None:
        """Depth first without recursion: membership files may nest deeply."""
        path = {start: None}
        branches = [iter(self._direct.get((org, "group", start), ()))]
        while path:
            group = next(branches[-1], None)
            if group is None:
                branches.pop()
                done.add((org, path.popitem()[0]))
            elif group in path:
                way = list(path)
                way = [*way[way.index(group) :], group]
                raise GroupCycleError(f"group {group} of {org} contains itself: {' → '.join(way)}")
            elif (org, group) not in done:
                path[group] = None
                branches.append(iter(self._direct.get((org, "group", group), ())))


def effective(policies: Iterable[Policy], org: str, user: str, groups: Collection[str]) -> Effective:
    """Return the limits that hold for what one user spends. `groups` = all groups of the user; no user, no limits."""
    if not user:
        return Effective()
    own: list[Policy] = []
    shared: list[Policy] = []
    for policy in policies:
        if policy.org_id != org:
            continue
        if policy.scope == "user":
            if policy.name == user:
                own.append(policy)
            elif policy.is_default:
                shared.append(policy)
        elif policy.applies == "each_member" and (policy.scope == "org" or _is_of(policy, groups)):
            shared.append(policy)
    deciding = own or shared
    if not deciding:
        return Effective()
    warn = min(deciding, key=lambda policy: (policy.warn_threshold_pct, policy.policy_id))

    def budgets(policy: Policy) -> list[Budget]:
        return budgets_of(policy, "user", user, warn.warn_threshold_pct)

    winners, lost = _smallest(deciding, budgets)
    if own:
        best = min(policy.policy_id for policy in own)
        lost += [Lost(budget, "own_policy", best) for policy in shared for budget in budgets(policy)]
    return Effective(
        budgets=tuple(winners[kind] for kind in sorted(winners)),
        warn_threshold_pct=warn.warn_threshold_pct,
        warn_policy_id=warn.policy_id,
        lost=tuple(sorted(lost, key=lambda entry: (entry.budget.kind, entry.budget.amount, entry.budget.policy_id))),
    )


def nameable(policies: Collection[Policy], org: str, user: str, known: Collection[Budget]) -> tuple[Budget, ...]:
    """Return what a user's calls may be limited by beside `known` when they name groups that he is no member of.

    Guards ask for the spend of these limits, so it is told; nobody is alerted, since no membership says they hold.
    """
    groups = {policy.name for policy in policies if policy.scope == "group" and policy.applies == "each_member"}
    kinds = {budget.kind for budget in known}
    found = effective(policies, org, user, groups).budgets if groups else ()
    return tuple(replace(one, thresholds=(), alert_remaining_micro=None) for one in found if one.kind not in kinds)


def pool_limits(policies: Iterable[Policy], org: str, scopes: Collection[tuple[str, str]]) -> tuple[Budget, ...]:
    """Return what limits these scopes together, ordered by policy and kind.

    `scopes` are (kind, name) pairs of a call; the organisation itself need not be named. Users are left out: their
    limits are in `effective`. The default for keys, agents, sessions or runs holds for each without a policy.
    """
    return _pools(policies, org, scopes)[0]


def lost_defaults(policies: Iterable[Policy], org: str, scopes: Collection[tuple[str, str]]) -> tuple[Lost, ...]:
    """Return the limits of defaults that do not bind these scopes, since they have a policy of their own."""
    return _pools(policies, org, scopes)[1]


def _pools(
    policies: Iterable[Policy], org: str, scopes: Collection[tuple[str, str]]
) -> tuple[tuple[Budget, ...], tuple[Lost, ...]]:
    own: dict[tuple[str, str], list[Policy]] = {}
    defaults: list[Policy] = []
    for policy in policies:
        if policy.org_id != org or policy.scope == "user":
            continue
        if policy.is_default:
            defaults.append(policy)
        elif policy.applies == "pool" and (policy.scope == "org" or (policy.scope, policy.name) in scopes):
            own.setdefault((policy.scope, policy.name), []).append(policy)
    found = [(policy, place) for place, named in own.items() for policy in named]
    lost: list[Lost] = []
    for policy in defaults:
        for place in scopes:
            if place[0] != policy.scope or not place[1]:
                continue
            if place not in own:
                found.append((policy, place))
                continue
            best = min(one.policy_id for one in own[place])
            lost += [Lost(one, "own_policy", best) for one in budgets_of(policy, *place, policy.warn_threshold_pct)]
    bound = [one for policy, place in found for one in budgets_of(policy, *place, policy.warn_threshold_pct)]
    return tuple(sorted(bound, key=_place)), tuple(sorted(lost, key=lambda entry: _place(entry.budget)))


def _place(budget: Budget) -> tuple[str, tuple[str, str], str]:
    return budget.policy_id, budget.kind, budget.name


def _is_of(policy: Policy, groups: Collection[str]) -> bool:
    return policy.scope == "group" and policy.name in groups


def budgets_of(policy: Policy, scope: str, name: str, warn_pct: int) -> list[Budget]:
    """Return a policy's limits as budgets of one scope, with one warn threshold beside the policy's own ones."""
    thresholds = tuple(sorted({*policy.alert_pcts, warn_pct}))
    return [
        Budget(
            policy.org_id,
            scope,
            name,
            limit,
            policy.currency,
            policy.timezone,
            thresholds,
            policy.alert_remaining_micro if limit.measure == "money" else None,
            policy.policy_id,
        )
        for limit in policy.all_limits
    ]


def _smallest(
    policies: Iterable[Policy], budgets: Callable[[Policy], list[Budget]]
) -> tuple[dict[tuple[str, str], Budget], list[Lost]]:
    """Return for each kind of limit the smallest, and those that lost to it; among equals the first policy id wins."""
    rivals: dict[tuple[str, str], list[Budget]] = {}
    for policy in policies:
        for budget in budgets(policy):
            rivals.setdefault(budget.kind, []).append(budget)
    winners: dict[tuple[str, str], Budget] = {}
    lost: list[Lost] = []
    for kind, found in rivals.items():
        best, *others = sorted(found, key=lambda budget: (budget.amount, budget.policy_id))
        winners[kind] = best
        lost += [
            Lost(other, "equal_limit" if other.amount == best.amount else "smaller_limit", best.policy_id)
            for other in others
        ]
    return winners, lost
