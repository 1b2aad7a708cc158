"""Limits beyond a plain day and month, in flight: each member's, of groups, tags, weeks, other zones, rolling hours.

They run on production's own fold. What must come out is worked out from the log of policies and members alone, and
from the rows of the ledger.
"""

import json
import random
from collections.abc import Iterator, Sequence
from typing import Any

from faust.types import TP

from tests.simulation.kernels import TARGETS
from tests.simulation.line import Line
from tests.simulation.rows import Row, Rows
from tests.simulation.tags import named_by_id
from tollmeter.schemas import topics
from tollmeter.schemas.control import ControlRecord, MemberDelete, MemberSet, PolicyDelete, PolicySet
from tollmeter.schemas.envelope import control_record
from tollmeter.schemas.policy import ASKED_COLUMNS, Limit, Member, Policy
from tollmeter.schemas.priced import H_KIND, KIND_CONTROL
from tollmeter.schemas.spend import Spend, spend_key
from tollmeter.streams.rules.limits.periods import period_of

ORGS, USERS, GROUPS = ("acme", "umbra", "wayne"), ("u1", "u2"), ("g1", "g2")
ZONES = ("UTC", "Asia/Kolkata", "Europe/Berlin")
STEP_S = 900
Bound = tuple[str, str, str, Limit, str]
"""Organisation, kind and name of a scope, its limit, and the zone."""
DEFAULTED = ("api_key", "session", "run")
"""Kinds with a default, beside users."""


class Limits:
    """Schedules control records; `rng` is its own, so that the rest of a run is as without."""

    def __init__(self, line: Line, seed: int) -> None:
        self._line, self._rng = line, random.Random(f"{seed} limits")

    def schedule(self, span_s: float) -> None:
        """Set some policies and members at once, and change them at any time."""
        rng = self._rng
        for _ in range(rng.randint(2, 5)):
            self._set_policy()
        for _ in range(rng.randint(1, 4)):
            self._change_member()
        for _ in range(rng.randint(0, 5)):
            self._line.world.at(rng.random() * span_s, rng.choice((self._set_policy, self._change_member)))
        if rng.random() < 0.3:
            self._line.world.at(rng.random() * span_s, self._delete_policy)

    def _set_policy(self) -> None:
        rng, org = self._rng, self._rng.choice(ORGS)
        scope, name, applies = rng.choice(
            (
                ("org", "", "each_member"),
                ("org", "", "each_member"),
                ("group", "g1", "each_member"),
                ("group", "g2", "each_member"),
                ("tag", "team=a", "pool"),
                ("tag", "team=b", "pool"),
                ("user", "u2", "pool"),
                ("api_key", "k2", "pool"),
            )
        )
        limit = rng.choice(
            (
                Limit(period="day", amount=rng.choice((8_000, 15_000))),
                Limit(period="week", amount=25_000),
                Limit(period="rolling", hours=rng.choice((2, 24)), amount=12_000),
                Limit(period="week", measure="requests", amount=4),
            )
        )
        policy = Policy(
            org_id=org,
            scope=scope,
            name=name,
            applies=applies,
            limits=(limit,),
            timezone=rng.choice(ZONES),  # type: ignore[arg-type]
        )
        self._control(PolicySet(policy=policy), org)

    def _delete_policy(self) -> None:
        known = [policy for org in ORGS for policy in rules_of(self._line, org)[0] if policy.applies == "each_member"]
        if known:
            policy = self._rng.choice(known)
            self._control(PolicyDelete(policy_id=policy.policy_id), policy.org_id)

    def _change_member(self) -> None:
        rng, org = self._rng, self._rng.choice(ORGS)
        if rng.random() < 0.2:  # one group inside the other; never the other way round, that would be a circle
            member = Member(org_id=org, kind="group", name="g1", groups=rng.choice(((), ("g2",))))
        else:
            groups = tuple(group for group in GROUPS if rng.random() < 0.6)
            member = Member(org_id=org, name=rng.choice(USERS), groups=groups)
        gone = rng.random() < 0.2
        self._control(MemberDelete(member_id=member.member_id) if gone else MemberSet(member=member), org)

    def _control(self, body: Any, org: str) -> None:
        value, headers = control_record(body)
        self._line.broker.append(topics.PRICED, topics.org_partition(org, TARGETS), None, value, headers)


def rules_of(line: Line, org: str) -> tuple[list[Policy], dict[tuple[str, str], tuple[str, ...]]]:
    """Return what the log says in the end: the policies of an organisation, and who is directly in which groups."""
    policies: dict[str, Policy] = {}
    members: dict[str, Member] = {}
    for log in line.broker.of(topics.PRICED):
        for record in log.history:
            if dict(record.headers).get(H_KIND) == KIND_CONTROL:
                body: Any = ControlRecord.model_validate_json(record.value).body
                if isinstance(body, PolicySet):
                    policies[body.policy.policy_id] = body.policy
                elif isinstance(body, PolicyDelete):
                    policies.pop(body.policy_id, None)
                elif isinstance(body, MemberSet):
                    members[body.member.member_id] = body.member
                elif isinstance(body, MemberDelete):
                    members.pop(body.member_id, None)
    direct = {(one.kind, one.name): one.groups for one in members.values() if one.org_id == org}
    return [policy for policy in policies.values() if policy.org_id == org], direct


def bound(line: Line, org: str, rows: Sequence[Row]) -> Iterator[Bound]:
    """Yield every limit that holds in the end, with the scope whose use it is compared with."""
    policies, direct = rules_of(line, org)
    for policy in policies:
        if policy.applies == "pool" and policy.scope != "user":
            yield from ((org, policy.scope, policy.name, limit, policy.timezone) for limit in policy.all_limits)
        for kind, name in {(kind, named(row)[kind]) for row in rows for kind in DEFAULTED}:
            owners = [one for one in policies if (one.scope, one.name) == (kind, name)]
            if policy.scope == kind and not policy.name and name and not owners:
                yield from ((org, kind, name, limit, policy.timezone) for limit in policy.all_limits)
    for user in {row.user for row in rows} - {""}:
        own = [policy for policy in policies if (policy.scope, policy.name) == ("user", user)]
        inside, waiting = set(), [*direct.get(("user", user), ())]
        while waiting:
            group = waiting.pop()
            if group not in inside:
                inside.add(group)
                waiting += direct.get(("group", group), ())
        each = [one for one in policies if one.applies == "each_member"]
        shared = [
            one
            for one in each
            if one.scope == "org"
            or (one.scope == "group" and one.name in inside)
            or (one.scope, one.name) == ("user", "")
        ]
        for policy in own or shared:
            yield from ((org, "user", user, limit, policy.timezone) for limit in policy.all_limits)


def wrong(line: Line) -> Iterator[str]:
    """I3 for totals that a policy asks for: in the present period they are the group-by of the ledger.

    Where ClickHouse refused a row they are not: WATCH has counted it, and its retry is a resend.
    """
    priced = (record for log in line.broker.ever(topics.PRICED) for record in log.history)
    refused = [row for record in priced if isinstance(record.value, Rows) for row in record.value if row.poison]
    for org in ORGS:
        partition = topics.org_partition(org, TARGETS)
        progress = json.loads(line.store.progress[partition][1])
        now_s = max(progress["clocks"].values(), default=0) // 1000
        rows = [row for row in line.store.events.values() if row.org == org and not row.void]
        for _, kind, name, limit, zone in sorted(set(bound(line, org, rows)), key=repr):
            for level, bucket, from_s, until_s in _buckets(kind, limit, zone, now_s):
                chosen = [row for row in rows if _counts(row, kind, name, from_s, until_s)]
                if _differ(refused, chosen, (org, kind, name), from_s, until_s):
                    continue
                wanted = (len(chosen), sum(row.cost_nano for row in chosen))
                found = line.store.windows.get((level, bucket, org, kind, name), (0, 0, 0))[1:]
                if found != wanted:
                    yield f"I3: {level} {bucket} of {org} {kind} {name} is {found}, not {wanted}"


def _differ(
    refused: Sequence[Row], chosen: Sequence[Row], scope: tuple[str, str, str], from_s: int, until_s: int
) -> bool:
    """Tell whether WATCH counted a refused row in this period, or in another one what came again in this."""
    org, kind, name = scope
    here = any(_counts(row, kind, name, from_s, until_s) for row in refused if row.org == org)
    return here or bool({row.identity for row in refused} & {row.identity for row in chosen})


def told(line: Line) -> Iterator[str]:
    """What guards are told in the end of each limit that binds is the ledger's, under the smallest of its kind."""
    priced = (record for log in line.broker.ever(topics.PRICED) for record in log.history)
    refused = [row for record in priced if isinstance(record.value, Rows) for row in record.value if row.poison]
    spent = {}
    for record in line.broker.logs[TP(topics.SPEND, 0)].records:
        spent[(record.key or b"").decode()] = record.value
    for org in ORGS:
        progress = json.loads(line.store.progress[topics.org_partition(org, TARGETS)][1])
        now_s = max(progress["clocks"].values(), default=0) // 1000
        rows = [row for row in line.store.events.values() if row.org == org and not row.void]
        smallest: dict[tuple[Any, ...], int] = {}
        for _, kind, name, limit, zone in bound(line, org, rows):
            if limit.period != "rolling":
                key = kind, name, limit.period, limit.measure, zone
                smallest[key] = min(limit.amount, smallest.get(key, limit.amount))
        for (kind, name, window, measure, zone), amount in sorted(smallest.items()):
            from_s, until_s = period_of(window, zone, now_s)
            chosen = [row for row in rows if _counts(row, kind, name, from_s, until_s)]
            if _differ(refused, chosen, (org, kind, name), from_s, until_s):
                continue
            money = measure == "money"
            wanted = sum(row.cost_nano for row in chosen) if money else len(chosen)
            value = spent.get(spend_key(org, kind, name, f"{window}@{zone}", "USD" if money else measure))
            row = Spend.model_validate_json(value) if value is not None else None
            found = 0 if row is None or row.ends_s != until_s else row.spent
            if found != wanted or (wanted and row is not None and row.limit != amount * (1_000 if money else 1)):
                of = row and row.limit
                yield f"I5: guards are told {found} of {of} for {org} {kind} {name} {window}, not {wanted}"


def outdated(line: Line) -> bool:
    """Tell whether a dead owner has told other amounts last: the next repetition heals what it says."""
    newest: dict[str, Any] = {}
    last: dict[str, Any] = {}
    for record in line.broker.logs[TP(topics.SPEND, 0)].records:
        key = (record.key or b"").decode()
        if key.startswith("spend/") and record.value is not None:
            row = json.loads(record.value)
            last[key] = row
            if key not in newest or row["stamp"] >= newest[key]["stamp"]:
                newest[key] = row
    told = ("spent", "limit", "ends_s")
    return any(row[name] != newest[key][name] for key, row in last.items() for name in told)


def _buckets(kind: str, limit: Limit, zone: str, now_s: int) -> Iterator[tuple[str, int, int, int]]:
    """Yield the windows that a limit is compared with now: level, number, start and end in seconds."""
    if limit.period == "rolling":
        last = now_s // STEP_S
        for step in range(last - (limit.hours or 0) * 4 + 1, last + 1):
            yield "quarter", step, step * STEP_S, (step + 1) * STEP_S
    elif limit.period == "week" or zone != "UTC" or kind in ASKED_COLUMNS:
        from_s, until_s = period_of(limit.period, zone, now_s)
        yield f"{limit.period}@{zone}", from_s // STEP_S, from_s, until_s


def _counts(row: Row, kind: str, name: str, from_s: int, until_s: int) -> bool:
    return named(row).get(kind) == name and from_s <= row.charged_us // 1_000_000 < until_s


def named(row: Row) -> dict[str, str]:
    """Return the scopes of a row by kind."""
    return {"org": "", "user": row.user, "api_key": row.key, **named_by_id(row.event_id)}
