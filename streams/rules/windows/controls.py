"""Control records: a policy or a member takes effect at its place in the log, and is evaluated at once.

Edges that the use is beyond already fire unless they were crossed under the limit before: a raised limit alerts anew
only above the present percentage, a lowered one for what it uncovers. A changed one that is spent all the same says so.
"""

from tollmeter.schemas.alert import Alert
from tollmeter.schemas.policy import Member, Policy
from tollmeter.streams.rules.limits.bindings import MEMBER, Change
from tollmeter.streams.rules.limits.budgets import Edge, crossed, period_level_of
from tollmeter.streams.rules.limits.policies import Budget
from tollmeter.streams.rules.limits.used import use_of
from tollmeter.streams.rules.windows.alerts import budget_alert
from tollmeter.streams.rules.windows.cardinality import take_out
from tollmeter.streams.rules.windows.state import State
from tollmeter.streams.rules.windows.totals import bucket_at, bucket_end_s

SPENT_PCT = 100
"""From this percentage on a limit is spent."""


def fold_policy(state: State, policy: Policy, offset: int, appended_ms: int) -> list[Alert]:
    """Take over a policy and return the edges that the periods of its append time are beyond already."""
    state.applied = offset
    state.changed_policies[policy.policy_id] = True
    return _settle(state, policy.org_id, state.budgets.set_policy(policy), offset, appended_ms)


def fold_policy_delete(state: State, policy_id: str, offset: int, appended_ms: int) -> list[Alert]:
    """Forget a policy, an absent one is no error; return the edges of the limits that take its place."""
    state.applied = offset
    known = state.budgets.policies.get(policy_id)
    state.changed_policies[policy_id] = False
    if known is None:
        return []
    return _settle(state, known.org_id, state.budgets.delete_policy(policy_id), offset, appended_ms)


def fold_member(state: State, member: Member, offset: int, appended_ms: int) -> list[Alert]:
    """Take over who is in which groups, and return the edges that limits for each member are beyond already."""
    state.applied = offset
    state.changed_policies[MEMBER + member.member_id] = True
    return _settle(state, member.org_id, state.budgets.set_member(member), offset, appended_ms)


def fold_member_delete(state: State, member_id: str, offset: int, appended_ms: int) -> list[Alert]:
    """Forget a member, an absent one is no error; return the edges of the limits that hold now."""
    state.applied = offset
    state.changed_policies[MEMBER + member_id] = False
    org_id = member_id.partition("/")[0].replace("%2F", "/").replace("%25", "%")
    return _settle(state, org_id, state.budgets.delete_member(member_id, org_id), offset, appended_ms)


def _settle(state: State, org_id: str, changes: list[Change], offset: int, now_ms: int) -> list[Alert]:
    if not state.budgets.asks_for_more(org_id):
        state.unsettled.pop(org_id, None)
    else:  # also without a change: the rule may have been saved by a checkpoint that never got to say what it lacks
        state.unsettled[org_id] = offset
    alerts: list[Alert] = []
    for scope, before, after in changes:
        state.to_publish.add(scope)
        if after:
            take_out(state, scope, offset, now_ms)
        over_before = {
            (budget.policy_id, budget.kind, edge.label): budget.amount
            for budget, edge in _over(state, scope, before, now_ms)
        }
        for budget, edge in _over(state, scope, after, now_ms):
            alert = edge_alert(state, budget, scope, edge, now_ms)
            amount = over_before.get((budget.policy_id, budget.kind, edge.label))
            still_spent = edge.pct is not None and edge.pct >= SPENT_PCT and amount != budget.amount
            if amount is None or still_spent:
                alerts.append(alert)
    return alerts


def expire(state: State) -> list[Alert]:
    """Let limits be as they are written whose time is over; return the edges that the use is beyond without them."""
    now_ms = max(state.clocks.values(), default=0)
    changed = state.budgets.expire(now_ms)
    return [alert for org_id, changes in changed for alert in _settle(state, org_id, changes, state.applied, now_ms)]


def _over(state: State, scope: int, budgets: tuple[Budget, ...], now_ms: int) -> list[tuple[Budget, Edge]]:
    return [
        (budget, edge)
        for budget in budgets
        for edge in crossed(budget, 0, use_of(state, budget, scope, now_ms // 1000))
    ]


def edge_alert(state: State, budget: Budget, scope: int, edge: Edge, now_ms: int) -> Alert:
    """Return the alert of an edge that a scope's present use is beyond; a rolling one is not raised again today."""
    level = period_level_of(budget)
    bucket = bucket_at(level, now_ms // 1000)
    alert = budget_alert(state, budget, scope, bucket, edge, use_of(state, budget, scope, now_ms // 1000), now_ms)
    if budget.limit.period == "rolling":
        state.raised.setdefault(alert.id, bucket_end_s(level, bucket))
    return alert
