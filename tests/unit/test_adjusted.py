"""Limits that are otherwise for a time: in force at once, over by themselves, in WATCH, guard and commands alike."""

import pytest

from tests import guard_rows
from tests.guard_rows import NOON, Time
from tests.laws.test_fold import Record
from tests.unit.test_corrections import tick
from tests.unit.test_guard import allowed, denied, guard_at
from tests.watch_rows import START, frame, new_state, row
from tollmeter.admin.adjust import Wish, put_back, raised
from tollmeter.schemas.alert import Alert
from tollmeter.schemas.envelope import tick_record
from tollmeter.schemas.policy import Adjustment, Limit, Policy
from tollmeter.streams.rules.limits.adjusted import NEVER_MS, adjusted, next_end_ms
from tollmeter.streams.rules.windows.controls import fold_policy
from tollmeter.streams.rules.windows.fold import fold_rows
from tollmeter.streams.rules.windows.snapshot import restore, snapshot
from tollmeter.streams.rules.windows.state import State
from tollmeter.streams.watch.records import fold_records

PLAIN = Policy(org_id="acme", daily_limit_micro=1, warn_threshold_pct=100, alert_pcts=(100,))


def until(end_ms: int, *, limit: str = "day/money", amount: int | None = None, added: int = 0) -> Adjustment:
    return Adjustment(limit=limit, amount=amount, added=added, since_ms=0, until_ms=end_ms, by="ann", reason="launch")


def changed(*adjustments: Adjustment) -> Policy:
    return PLAIN.model_copy(update={"adjustments": adjustments})


@pytest.mark.parametrize(
    ("adjustments", "amount"),
    [
        ((), 1),
        ((until(11, amount=5),), 5),
        ((until(10, amount=5),), 1),
        ((until(11, limit="month/money", amount=5),), 1),
        ((until(11, added=3),), 4),
        ((until(11, amount=5), until(12, amount=7)), 7),
        ((until(11, amount=5), until(12, added=7)), 12),
        ((until(11, added=7), until(12, amount=5)), 12),
        ((until(11, added=7), until(12, added=9)), 10),
        ((until(12, amount=5), until(9, amount=7)), 5),
    ],
)
def test_the_limit_that_holds_at_a_time(adjustments: tuple[Adjustment, ...], amount: int) -> None:
    (limit,) = adjusted(changed(*adjustments), 10).all_limits
    assert limit == Limit(period="day", amount=amount)


def test_ends_come_one_after_the_other() -> None:
    policy = changed(until(20, amount=5), until(12, added=7))
    assert [next_end_ms(policy, now_ms) for now_ms in (0, 11, 12, 19, 20)] == [12, 12, 20, 20, NEVER_MS]
    assert adjusted(policy, 20).all_limits == PLAIN.all_limits


def test_a_policy_without_adjustments_is_written_as_before() -> None:
    assert "adjustments" not in PLAIN.model_dump_json()
    policy = changed(until(12, amount=5))
    assert Policy.model_validate_json(policy.model_dump_json()) == policy


def spend(state: State, number: int, cost_nano: int) -> list[Alert]:
    return fold_rows(state, frame([row(number, START, cost_nano=cost_nano)]), state.applied + 1)


def pcts(alerts: list[Alert]) -> list[tuple[int, int]]:
    return [(alert.facts["limit_nano"], alert.facts["threshold_pct"]) for alert in alerts if alert.kind == "budget"]


def test_a_raise_ends_while_one_source_is_silent_and_a_restart_tells_no_other_story() -> None:
    state = new_state()
    fold_policy(state, changed(until((START + 30) * 1_000, amount=3)), 1, START * 1_000)
    assert pcts(spend(state, 1, 2_000)) == []
    fold_records(state, [tick_of(0, 62, START + 29)])  # of source partition 1 nobody has heard
    saved = snapshot(state)
    again = new_state()
    restore(again, saved.progress, saved.cells, [policy for _, policy in saved.policies if policy is not None])
    for one in (state, again):
        assert pcts(fold_records(one, [tick_of(0, 63, START + 31)])) == [(1_000, 100)]
        assert pcts(fold_records(one, [tick(64, START + 40)])) == []


def tick_of(source: int, offset: int, at_s: float) -> Record:
    value, headers = tick_record({source: round(at_s * 1_000)})
    return Record(offset, round(at_s * 1_000), headers, value)


def test_watch_counts_by_the_raised_limit_and_by_the_plain_one_behind_its_end() -> None:
    state = new_state()
    fold_records(state, [tick(0, START)])
    fold_policy(state, changed(until((START + 30) * 1_000, amount=3)), 1, START * 1_000)
    assert pcts(spend(state, 1, 2_000)) == []
    assert pcts(spend(state, 2, 1_000)) == [(3_000, 100)]
    assert pcts(fold_records(state, [tick(9, START + 29)])) == []
    saved = snapshot(state)
    assert pcts(fold_records(state, [tick(10, START + 31)])) == [(1_000, 100)]
    assert pcts(fold_records(state, [tick(11, START + 40)])) == []
    again = new_state()
    restore(again, saved.progress, saved.cells, [policy for _, policy in saved.policies if policy is not None])
    assert pcts(fold_records(again, [tick(10, START + 31)])) == [(1_000, 100)]


def test_a_changed_limit_that_is_spent_all_the_same_says_so() -> None:
    state = new_state()
    fold_policy(state, PLAIN, 0, START * 1_000)
    assert pcts(spend(state, 1, 5_000)) == [(1_000, 100)]
    raised = PLAIN.model_copy(update={"daily_limit_micro": 3})
    assert pcts(fold_policy(state, raised, state.applied + 1, START * 1_000)) == [(3_000, 100)]
    assert pcts(fold_policy(state, raised, state.applied + 1, START * 1_000)) == []
    free = PLAIN.model_copy(update={"daily_limit_micro": 9})
    assert pcts(fold_policy(state, free, state.applied + 1, START * 1_000)) == []


def test_the_guard_obeys_at_once_and_goes_back_by_itself() -> None:
    time = Time()
    policy = Policy(org_id="acme", daily_limit_micro=10)
    end_ms = NOON * 1_000 + 60_000
    guard = guard_at(time, guard_rows.policy(policy), guard_rows.spend(10_000), guard_rows.as_of(NOON * 1_000))
    call = {"org": "acme", "prompt_tokens": 1, "max_output_tokens": 1}
    denied(guard.check("gpt-a", **call))
    raised = policy.model_copy(update={"adjustments": (until(end_ms, amount=1_000),)})
    guard_rows.feed(guard, guard_rows.policy(raised))
    allowed(guard.check("gpt-a", **call)).reservation.release()
    time.pass_(59)
    guard_rows.feed(guard, guard_rows.as_of((NOON + 59) * 1_000))
    allowed(guard.check("gpt-a", **call)).reservation.release()
    time.pass_(2)
    guard_rows.feed(guard, guard_rows.as_of((NOON + 61) * 1_000))
    denied(guard.check("gpt-a", **call))


def test_a_limit_that_is_put_back_is_the_policys_own_and_what_was_reset_stays() -> None:
    hour = 3_600_000
    wish = Wish("ann", "launch", 1_000, hour)
    policy = Policy(org_id="acme", daily_limit_micro=5, monthly_limit_micro=9)
    for_now = (
        *raised(policy, [Limit(period="day", amount=50)], wish),
        Adjustment(limit="day/money", added=3, since_ms=1_000, until_ms=hour, by="ann", reason="refund"),
    )
    changed = policy.model_copy(update={"adjustments": for_now})
    assert {limit.key: limit.amount for limit in adjusted(changed, 2_000).all_limits}["day/money"] == 53
    (end,) = put_back(changed, Wish("bob", "over", 3_000, 3_000))
    assert (end.limit, end.amount, end.added, end.since_ms, end.until_ms) == ("day/money", None, 0, 3_000, 3_000)
    assert (end.by, end.reason, end.puts_back) == ("bob", "over", True)
    kept = tuple(one for one in for_now if one.added)
    after = policy.model_copy(update={"adjustments": (*kept, end)})
    amounts = {limit.key: limit.amount for limit in adjusted(after, 3_000).all_limits}
    assert amounts == {"day/money": 8, "month/money": 9}
    assert put_back(after, wish) == []
    assert put_back(changed, Wish("bob", "late", hour, hour)) == []
