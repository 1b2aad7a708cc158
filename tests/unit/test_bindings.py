"""Tables for budgets beyond the plain ones: members, tags, weeks, zones, rolling sums, tokens, what remains."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest

from tests.watch_rows import START, frame, new_state, row
from tollmeter.schemas.alert import Alert
from tollmeter.schemas.policy import Limit, Member, Policy
from tollmeter.schemas.progress import Progress
from tollmeter.streams.rules.limits.budgets import Watchlist
from tollmeter.streams.rules.limits.spend_rows import spend_rows
from tollmeter.streams.rules.windows.barriers import barrier, move_clocks
from tollmeter.streams.rules.windows.burn import outlook
from tollmeter.streams.rules.windows.controls import fold_member, fold_member_delete, fold_policy, fold_policy_delete
from tollmeter.streams.rules.windows.fold import columns_read, fold_rows
from tollmeter.streams.rules.windows.snapshot import restore, snapshot
from tollmeter.streams.rules.windows.state import State

MONDAY = int(datetime(2026, 11, 23, tzinfo=UTC).timestamp())


class Line:
    """A state, and the log offsets that it is fed with."""

    def __init__(self, *policies: Policy) -> None:
        self.state = new_state()
        self.number = 0
        for policy in policies:
            self.policy(policy)

    @property
    def offset(self) -> int:
        return self.state.applied + 1

    def policy(self, policy: Policy, at_s: int = START) -> list[Alert]:
        return fold_policy(self.state, policy, self.offset, at_s * 1000)

    def spend(self, cost_nano: int, at_s: float = START, **fields: Any) -> list[str]:
        """Fold one call; return "kind name pct period" of its alerts about budgets."""
        self.number += 1
        rows = frame([row(self.number, at_s, cost_nano=cost_nano, **fields)], columns_read(self.state))
        return said(fold_rows(self.state, rows, self.offset))

    def tick(self, at_s: int) -> list[str]:
        move_clocks(self.state, {0: at_s * 1000, 1: at_s * 1000}, self.offset)
        return said(barrier(self.state, caught_up=True))


def said(alerts: list[Alert]) -> list[str]:
    return [
        f"{alert.scope} {alert.name} {alert.facts['threshold_pct'] or 'remaining'} {alert.period}"
        for alert in alerts
        if alert.kind in ("budget", "remaining")
    ]


def each(scope: str = "org", name: str = "", **fields: Any) -> Policy:
    return Policy(org_id="acme", scope=scope, name=name, applies="each_member", alert_pcts=(100,), **fields)  # type: ignore[arg-type]


def pool(scope: str = "org", name: str = "", pcts: tuple[int, ...] = (100,), **fields: Any) -> Policy:
    return Policy(org_id="acme", scope=scope, name=name, alert_pcts=pcts, warn_threshold_pct=pcts[0], **fields)  # type: ignore[arg-type]


def test_a_limit_for_each_member_counts_every_user_alone_also_one_that_appears_later() -> None:
    line = Line(each(daily_limit_micro=1, warn_threshold_pct=100))
    assert line.spend(999, user_id="ann") == []
    assert line.spend(999, user_id="ben") == []
    assert line.spend(1, user_id="ann") == ["user ann 100 2026-11-20"]
    assert line.spend(5_000, user_id="") == []


def test_the_strictest_group_wins_and_a_users_own_policy_wins_whole() -> None:
    everybody = each(daily_limit_micro=5, warn_threshold_pct=100)
    line = Line(each("group", "dev", daily_limit_micro=2, warn_threshold_pct=100), everybody)
    fold_member(line.state, Member(org_id="acme", name="ann", groups=("dev",)), line.offset, START * 1000)
    assert line.spend(2_000, user_id="ann") == ["user ann 100 2026-11-20"]
    assert line.spend(2_000, user_id="ben") == []
    line.policy(pool("user", "ann", daily_limit_micro=9))
    assert line.spend(6_999, user_id="ann") == []
    assert line.spend(1, user_id="ann") == ["user ann 100 2026-11-20"]


def test_who_joins_a_group_is_measured_by_its_limit_at_once_and_who_leaves_no_longer() -> None:
    line = Line(each("group", "dev", daily_limit_micro=1, warn_threshold_pct=100))
    assert line.spend(5_000, user_id="ann") == []
    member = Member(org_id="acme", name="ann", groups=("dev",))
    assert said(fold_member(line.state, member, line.offset, START * 1000)) == ["user ann 100 2026-11-20"]
    assert fold_member_delete(line.state, member.member_id, line.offset, START * 1000) == []
    assert not any(one.thresholds for scope in line.state.budgets.scopes for one in line.state.budgets.of(scope))


def test_when_a_users_own_policy_goes_the_next_limit_holds_at_once() -> None:
    own = pool("user", "ann", daily_limit_micro=100)
    line = Line(each(daily_limit_micro=1, warn_threshold_pct=100), own)
    assert line.spend(5_000, user_id="ann") == []
    found = fold_policy_delete(line.state, own.policy_id, line.offset, START * 1000)
    assert said(found) == ["user ann 100 2026-11-20"]


def test_a_week_of_a_zone_begins_on_its_own_monday() -> None:
    limit = Limit(period="week", amount=1)
    line = Line(pool(limits=(limit,), timezone="Asia/Kolkata"))
    monday_there = MONDAY - 5 * 3_600 - 1_800
    assert line.spend(999, monday_there - 1) == []
    assert line.spend(999, monday_there) == []
    assert line.spend(1, monday_there) == ["org  100 2026-W48"]


def test_a_day_of_a_zone_counts_beside_the_day_in_utc() -> None:
    line = Line(pool(daily_limit_micro=1, timezone="America/New_York"), pool("user", "u", daily_limit_micro=1))
    midnight = int(datetime(2026, 11, 20, tzinfo=UTC).timestamp())
    assert line.spend(600, midnight - 60) == []
    assert line.spend(600, midnight + 60) == ["org  100 2026-11-19"]
    assert line.spend(400, midnight + 120) == ["user u 100 2026-11-20"]


def test_a_rolling_sum_falls_again_and_alerts_once_a_day() -> None:
    line = Line(pool(limits=(Limit(period="rolling", amount=1, hours=2),)))
    line.spend(600, START)
    assert line.tick(START) == []
    line.spend(600, START + 2 * 3_600)  # the first 600 have left the two hours
    assert line.tick(START + 2 * 3_600) == []
    line.spend(600, START + 3 * 3_600)
    assert line.tick(START + 3 * 3_600) == ["org  100 2026-11-20"]
    line.spend(600, START + 3 * 3_600 + 1)
    assert line.tick(START + 3 * 3_600 + 1) == []
    line.spend(1_200, START + 15 * 3_600)
    assert line.tick(START + 15 * 3_600) == ["org  100 2026-11-21"]


@pytest.mark.parametrize(
    ("measure", "fields", "counts"),
    [
        pytest.param("tokens", {"input_tokens": 90, "output_tokens": 10}, True, id="input and output"),
        pytest.param("tokens", {"input_tokens": 90, "output_tokens": 9}, False, id="one token below"),
        pytest.param("tokens", {"input_tokens": 900, "billing_scope": "USER"}, False, id="tokens on an own key"),
        pytest.param("requests", {"status": "BLOCKED"}, False, id="a refused call is no request"),
        pytest.param("requests", {"billing_scope": "USER"}, False, id="a call on an own key"),
        pytest.param("requests", {"status": "BLOCKED", "billing_scope": "USER"}, False, id="refused on an own key"),
        pytest.param("requests", {"status": "ERROR"}, True, id="a failed call is one"),
    ],
)
def test_tokens_and_requests(measure: str, fields: dict[str, Any], counts: bool) -> None:
    amount = 100 if measure == "tokens" else 1
    line = Line(pool(limits=(Limit(period="day", measure=measure, amount=amount),)))  # type: ignore[arg-type]
    assert line.spend(0, **fields) == (["org  100 2026-11-20"] if counts else [])


def test_a_tag_with_a_budget_is_counted_and_others_are_not_even_scopes() -> None:
    line = Line(pool("tag", "team=blue", daily_limit_micro=1))
    blue, green = {"key": "team", "value": "blue"}, {"key": "team", "value": "green"}
    assert line.spend(999, tags=[blue]) == []
    assert line.spend(999, tags=[green]) == []
    assert line.spend(999, tags=None) == []
    assert line.spend(1, tags=[green, blue, blue]) == ["tag team=blue 100 2026-11-20"]
    assert [name for _, kind, name in line.state.scopes.names if kind == "tag"] == ["team=blue"]
    assert line.spend(999, org_id="other", tags=[blue]) == []


def test_less_than_an_amount_remains_once() -> None:
    line = Line(pool("provider", "openai", monthly_limit_micro=10, alert_remaining_micro=5))
    assert line.spend(5_000) == []
    assert line.spend(1) == ["provider openai remaining 2026-11"]
    assert line.spend(1) == []


def test_a_lowered_limit_alerts_what_it_uncovers_and_a_raised_one_nothing() -> None:
    line = Line(pool(daily_limit_micro=10, pcts=(20, 50, 80, 100)))
    assert line.spend(5_000) == ["org  20 2026-11-20", "org  50 2026-11-20"]
    assert said(line.policy(pool(daily_limit_micro=6, pcts=(20, 50, 80, 100)))) == ["org  80 2026-11-20"]
    assert line.policy(pool(daily_limit_micro=20, pcts=(20, 50, 80, 100))) == []
    assert line.spend(5_000) == ["org  50 2026-11-20"]


def test_a_restored_state_has_the_same_budgets_and_goes_on_where_it_was() -> None:
    line = Line(
        each(daily_limit_micro=2, warn_threshold_pct=100),
        pool("tag", "team=blue", daily_limit_micro=3),
        pool(
            limits=(Limit(period="week", amount=3), Limit(period="rolling", amount=3, hours=24)),
            timezone="Asia/Tokyo",
        ),
    )
    fold_member(line.state, Member(org_id="acme", name="ann", groups=("dev",)), line.offset, START * 1000)
    line.spend(1_999, user_id="ann", tags=[{"key": "team", "value": "blue"}])
    line.tick(START)
    taken = snapshot(line.state)
    again = Line()
    rules = [rule for _, rule in taken.policies if rule is not None]
    restore(again.state, Progress.read(taken.progress.text()), taken.cells, rules)
    again.number = line.number
    assert _bound(again.state) == _bound(line.state)
    assert again.state.budgets.groups.members == line.state.budgets.groups.members
    more = {"user_id": "ann", "tags": [{"key": "team", "value": "blue"}]}
    for fed in (line, again):
        assert fed.spend(1_000, START + 60, **more) == ["user ann 100 2026-11-20"]
        assert fed.spend(1, START + 61, **more) == ["tag team=blue 100 2026-11-20", "org  100 2026-W47"]
        assert fed.tick(START + 62) == ["org  100 2026-11-20"]


def _bound(state: State) -> dict[Any, Any]:
    return {state.scopes.names[scope]: state.budgets.of(scope) for scope in state.budgets.scopes}


def test_a_watchlist_watches_what_it_was_told_last() -> None:
    watchlist = Watchlist()
    for scope in range(200):
        watchlist.set(scope, range(10, 10 + scope % 7))
    scopes = np.array([5, 100, 10_000])
    assert watchlist.watched(scopes).tolist() == [0, 1]
    zero, ten = np.zeros(3, dtype=np.int64), np.full(3, 10)
    assert watchlist.crossing(scopes, zero, ten).tolist() == [0, 1]
    assert watchlist.crossing(scopes, ten, ten).tolist() == []
    watchlist.set(100, [])
    assert watchlist.watched(scopes).tolist() == [0]
    watchlist.set(10_000, [11])
    assert watchlist.crossing(scopes, ten, ten + 1).tolist() == [0, 2]


def told(state: State) -> list[tuple[str, str, str, int]]:
    """Return scope, period, unit and use of what guards are told."""
    return [(row.scope, row.period, row.unit, row.spent) for row in spend_rows(state, state.budgets.scopes)]


def test_the_limit_of_a_group_that_only_calls_name_is_told_to_guards_and_alerts_nobody() -> None:
    weekly = Limit(period="week", measure="tokens", amount=9)
    line = Line(each("group", "interns", daily_limit_micro=1, limits=(weekly,)))
    assert line.spend(1_500, user_id="ann") == []
    (ann,) = line.state.budgets.scopes
    assert ann in line.state.to_publish
    assert line.tick(START + 60) == []
    assert told(line.state) == [("user", "day@UTC", "USD", 1_500), ("user", "week@UTC", "tokens", 12)]
    fold_member(line.state, Member(org_id="acme", name="ann", groups=("interns",)), line.offset, START * 1000)
    assert line.spend(0, user_id="ann") == []
    again = fold_policy(
        line.state, each("group", "interns", daily_limit_micro=2, warn_threshold_pct=100), line.offset, START * 1000
    )
    assert said(again) == []
    assert line.spend(600, user_id="ann") == ["user ann 100 2026-11-20"]


def test_a_users_own_policy_wins_whole_over_groups_that_calls_name() -> None:
    own = Policy(org_id="acme", scope="user", name="ann", monthly_limit_micro=5)
    line = Line(each("group", "interns", daily_limit_micro=1), own)
    line.spend(1_500, user_id="ann")
    assert [(scope, period) for scope, period, *_ in told(line.state)] == [("user", "month@UTC")]


def test_a_limit_that_binds_is_told_before_one_that_calls_may_name() -> None:
    line = Line(each("org", monthly_limit_micro=7), each("group", "interns", monthly_limit_micro=5))
    line.spend(1_500, user_id="ann")
    assert [(row.policy_id, row.limit) for row in spend_rows(line.state, line.state.budgets.scopes)] == [
        ("acme/org//each_member/USD", 7_000)
    ]


def test_the_pace_of_such_a_limit_is_told_nobody() -> None:
    line = Line(each("group", "interns", monthly_limit_micro=1_000_000_000))
    line.spend(60_000_000_000, user_id="ann")
    (ann,) = line.state.budgets.scopes
    (quiet,) = line.state.budgets.of(ann)
    loud, now_ms = replace(quiet, thresholds=(100,)), (START + 60) * 1_000
    assert outlook(line.state, quiet, ann, now_ms) == []
    assert "burn_rate" in [alert.kind for alert in outlook(line.state, loud, ann, now_ms)]
