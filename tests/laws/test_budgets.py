"""Budgets against a row-by-row oracle: each edge fires exactly once per period and limit, whatever the order,
the resends, the replays and the restarts of the log.

More orders than a test run tries: python -m tests.laws.test_budgets FIRST_SEED SEEDS
"""

import random
import sys
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.effort import examples
from tests.laws.test_fold import Record, remember_like_the_log, rows_record, store_cell
from tests.watch_rows import START, new_state, row
from tollmeter.schemas.control import MemberSet, PolicySet
from tollmeter.schemas.envelope import control_record
from tollmeter.schemas.policy import Limit, Member, Policy
from tollmeter.schemas.progress import Progress
from tollmeter.streams.rules.windows.snapshot import CELL_SCHEMA, restore, snapshot
from tollmeter.streams.watch.records import fold_records

GROUPS = {"ann": ("dev",), "ben": ("dev", "ops"), "cid": ()}
Edge = tuple[str, str, str, str, str, str]
"""Policy id, window, unit, name of the scope, period, edge."""


def a_policy(rng: random.Random) -> Policy:
    scope, name, applies = rng.choice(
        [
            ("org", "", "pool"),
            ("org", "", "each_member"),
            ("group", "dev", "each_member"),
            ("user", "ann", "pool"),
            ("group", "ops", "each_member"),
            ("tag", "team=blue", "pool"),
            ("model", "gpt-4o", "pool"),
            ("group", "g", "pool"),
        ]
    )
    limits = [
        Limit(period=period, measure=measure, amount=rng.randint(1, 8))  # type: ignore[arg-type]
        for period in rng.sample(["day", "week", "month"], rng.randint(1, 3))
        for measure in rng.sample(["money", "tokens", "requests"], rng.randint(1, 2))
    ]
    return Policy(
        org_id="acme",
        scope=scope,
        name=name,
        applies=applies,
        limits=tuple(limits),  # type: ignore[arg-type]
        currency=rng.choice(["USD", "EUR"]),
        timezone=rng.choice(["UTC", "Asia/Kolkata", "America/New_York"]),
        alert_pcts=tuple(rng.sample([20, 50, 100, 130], 2)),
        warn_threshold_pct=rng.randint(1, 100),
        alert_remaining_micro=rng.choice([None, 1, 9]),
    )


def some_rows(rng: random.Random) -> list[dict[str, Any]]:
    return [
        row(
            number,
            START + rng.randint(-3_000, 0),
            offset=number,
            received_s=START,
            user_id=rng.choice(["ann", "ben", "cid", "new", ""]),
            model=rng.choice(["gpt-4o", "o3"]),
            cost_nano=rng.choice([0, 100, 1_000, 2_500]),
            cost_eur_nano=rng.choice([0, 90, 900]),
            at_risk_nano=rng.choice([None, None, 300]),
            input_tokens=rng.choice([0, 1, 3]),
            output_tokens=0,
            status=rng.choice(["OK", "OK", "BLOCKED"]),
            billing_scope=rng.choice(["ORG", "ORG", "USER"]),
            tags=rng.choice([None, [{"key": "team", "value": "blue"}], [{"key": "team", "value": "red"}]]),
        )
        for number in range(rng.randint(1, 25))
    ]


def own_limits(policies: list[Policy], user: str) -> list[tuple[Policy, Limit, int]]:
    """The limits of a user for himself, written down once more: own ones win whole, else the smallest of each kind."""
    mine = [p for p in policies if p.scope == "user" and p.name == user]
    shared = [
        p for p in policies if p.applies == "each_member" and (p.scope == "org" or p.name in GROUPS.get(user, ()))
    ]
    asked = mine or shared
    warn = min((p.warn_threshold_pct for p in asked), default=80)
    best: dict[Any, tuple[int, str, Policy, Limit]] = {}
    for policy in asked:
        for limit in policy.all_limits:
            unit = policy.currency if limit.measure == "money" else limit.measure
            amount = limit.amount
            kind = (limit.period, unit, policy.timezone)
            if kind not in best or (amount, policy.policy_id) < best[kind][:2]:
                best[kind] = (amount, policy.policy_id, policy, limit)
    return [(policy, limit, warn) for _, _, policy, limit in best.values()]


def expected(policies: list[Policy], rows: list[dict[str, Any]]) -> set[Edge]:
    """Return the edges that distinct rows cross, one row after the other."""
    use: dict[Any, int] = defaultdict(int)
    edges: set[Edge] = set()
    for call in rows:
        if call["billing_scope"] == "USER":
            continue
        bound = [(p, limit, "user", call["user_id"], warn) for p, limit, warn in own_limits(policies, call["user_id"])]
        names = {"org": "", "group": call["group_id"], "model": call["model"]}
        for p in policies:
            pooled = p.applies == "pool" and p.scope != "user"
            tagged = p.scope == "tag" and {"key": "team", "value": "blue"} in (call["tags"] or [])
            if pooled and (tagged or (p.scope in names and names[p.scope] == p.name)):
                bound += [(p, limit, p.scope, p.name, p.warn_threshold_pct) for limit in p.all_limits]
        for p, limit, scope, name, warn in bound:
            if scope == "user" and not name:
                continue
            amount = {
                "money": call["cost_eur_nano"]
                if p.currency == "EUR"
                else call["cost_nano"] + (call["at_risk_nano"] or 0),
                "tokens": call["input_tokens"] + call["output_tokens"],
                "requests": call["status"] != "BLOCKED",
            }[limit.measure]
            factor = 1_000 if limit.measure == "money" else 1
            unit = p.currency if limit.measure == "money" else limit.measure
            period = period_text(limit.period, p.timezone, call["event_time"])
            where = (p.policy_id, limit.period, unit, name, period)
            before, use[where] = use[where], use[where] + int(amount)
            top = limit.amount * factor
            for pct in {*p.alert_pcts, warn}:
                if before * 100 < pct * top <= use[where] * 100:
                    edges.add((*where, str(pct)))
            rest = p.alert_remaining_micro
            if limit.measure == "money" and rest is not None:
                left_before, left = top - before, top - use[where]
                if left < rest * 1_000 and use[where] > 0 and (left_before >= rest * 1_000 or before == 0):
                    edges.add((*where, "None"))
    return edges


def period_text(period: str, zone: str, at_us: int) -> str:
    local = (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=at_us)).astimezone(ZoneInfo(zone))
    return {"day": f"{local:%Y-%m-%d}", "week": f"{local:%G-W%V}", "month": f"{local:%Y-%m}"}[period]


def check(seed: int) -> int:
    """Feed one random log to lives of a worker; return how many edges it crossed."""
    rng = random.Random(seed)
    policies = list({policy.policy_id: policy for policy in (a_policy(rng) for _ in range(rng.randint(1, 4)))}.values())
    rows = some_rows(rng)
    records: list[Record] = []
    members = [MemberSet(member=Member(org_id="acme", name=name, groups=groups)) for name, groups in GROUPS.items()]
    controls = [*members, *(PolicySet(policy=policy) for policy in policies)]
    rng.shuffle(controls)
    for body in controls:
        value, headers = control_record(body)
        records.append(Record(len(records), START * 1000, headers, value))
    position = 0
    while position < len(rows):
        chunk = rows[max(0, position - rng.randint(0, 2)) : position + rng.randint(1, 4)]  # replays overlap
        position = rows.index(chunk[-1]) + 1
        resent = [
            {**old, "src_offset": 1_000 + len(records), "src_partition": 1} for old in rng.sample(rows[:position], 1)
        ]
        records.append(rows_record(len(records), [*chunk, *resent]))
    state, found = new_state(), []
    stored: dict[tuple[Any, ...], dict[str, Any]] = {}
    for record in records:
        found += fold_records(state, [record])
        if rng.random() < 0.1:  # killed behind a checkpoint
            taken = snapshot(state)
            for cell in taken.cells.to_dicts():
                store_cell(stored, cell)
            cells = pl.DataFrame(list(stored.values()), schema=CELL_SCHEMA)
            state = new_state()
            restore(state, Progress.read(taken.progress.text()), cells, _rules(controls, record.offset))
            remember_like_the_log(state, records)
    ids = [alert.id for alert in found if alert.kind in ("budget", "remaining")]
    assert len(ids) == len(set(ids)), "an alert was raised twice"
    said = {
        (a.facts["policy_id"], a.facts["window"], a.facts["unit"], a.name, a.period, str(a.facts["threshold_pct"]))
        for a in found
        if a.kind in ("budget", "remaining")
    }
    want = expected(policies, rows)
    assert said == want, f"seed {seed}: too few {want - said}, too many {said - want}"
    return len(want)


def _rules(controls: list[Any], until: int) -> list[Policy | Member]:
    return [body.policy if isinstance(body, PolicySet) else body.member for body in controls[: until + 1]]


@given(st.integers(0, 10**9))
@settings(max_examples=examples(50), deadline=None)
def test_each_edge_fires_exactly_once(seed: int) -> None:
    check(seed)


def test_the_law_is_about_something() -> None:
    assert sum(check(seed) for seed in range(40)) > 40


if __name__ == "__main__":
    first, count = int(sys.argv[1]), int(sys.argv[2])
    print(sum(check(seed) for seed in range(first, first + count)), "edges, each exactly once")
