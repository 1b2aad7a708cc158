"""Defaults, sessions and runs in the guard: who is refused, what is in flight, and that memory is given back."""

from typing import Any

import pytest

from tests import guard_rows as rows
from tests.guard_rows import NOON, Time, feed
from tests.unit.test_guard import allowed, denied, guard_at
from tollmeter.producers.client.client import UsageProducer
from tollmeter.producers.guard import accounts
from tollmeter.producers.guard.guard import Guard
from tollmeter.schemas.policy import Policy

CALL: dict[str, Any] = {"org": "acme", "prompt_tokens": 1_000}
"""1,000 tokens of gpt-a: 0.001 USD."""
KINDS = {
    "user": "user",
    "api_key": "api_key_id",
    "agent": "agent",
    "session": "session_id",
    "run": "trace_id",
}


def default(scope: str, **fields: Any) -> Policy:
    limits = {"daily_limit_micro": 1_500} | fields
    return Policy.model_validate({"org_id": "acme", "scope": scope, "applies": "each_member", **limits})


@pytest.mark.parametrize(("scope", "field"), KINDS.items())
def test_each_member_has_the_default_and_calls_in_flight_count(scope: str, field: str) -> None:
    guard = guard_at(None, rows.policy(default(scope)))
    first = allowed(guard.check("gpt-a", **CALL, **{field: "a"}))
    deny = denied(guard.check("gpt-a", **CALL, **{field: "a"}))
    assert (deny.http_status, deny.body["scope"], deny.body["name"], deny.body["reason"]) == (
        402,
        scope,
        "a",
        "reserved",
    )
    assert (deny.body["policy_id"], deny.body["applies"]) == (f"acme/{scope}//each_member/USD", "each_member")
    assert deny.body["message"] == "llm cost limit exceeded: daily cost limit reached"
    assert (deny.body["limit"], deny.body["in_flight"], deny.body["remaining"]) == (1_500_000, 1_000_000, 500_000)
    assert guard.check("gpt-a", **CALL, **{field: "A"}), "another name is another member"
    assert guard.check("gpt-a", **CALL), "nobody has no limit of his own"
    assert guard.check("gpt-a", **CALL, **{field: "a"}, billing_scope="USER"), "who pays himself is not asked"
    first.reservation.release()
    assert guard.check("gpt-a", **CALL, **{field: "a"})


@pytest.mark.parametrize(("scope", "field"), KINDS.items())
def test_an_own_policy_wins_whole_until_it_is_gone(scope: str, field: str) -> None:
    own = Policy.model_validate({"org_id": "acme", "scope": scope, "name": "a", "monthly_limit_micro": 10**6})
    guard = guard_at(None, rows.policy(default(scope)), rows.policy(own))
    for _ in range(5):
        allowed(guard.check("gpt-a", **CALL, **{field: "a"})).reservation.settle()
    feed(guard, (*rows.policy(own)[:2], None), rows.spend(5_000_000, 1_500_000, scope=scope, name="a"))
    deny = denied(guard.check("gpt-a", **CALL, **{field: "a"}))
    assert deny.body["policy_id"] == f"acme/{scope}//each_member/USD"


@pytest.mark.parametrize("name", ["x" * 256, "a/b", "%2F", "Ünï", "*", "a\nb", "spend/acme"])
def test_a_session_is_refused_by_its_row_whatever_it_is_called(name: str) -> None:
    guard = guard_at(None, rows.policy(default("session")))
    row = rows.spend(2_000_000, 1_500_000, scope="session", name=name)
    feed(guard, row)
    assert denied(guard.check("gpt-a", **CALL, session_id=name)).body["reason"] == "used"
    assert guard.check("gpt-a", **CALL, session_id=name + "x" if len(name) < 256 else "y")


def test_a_refusal_says_session_run_and_feature() -> None:
    with UsageProducer(service="t", mode="memory") as producer:
        guard = guard_at(None, rows.policy(default("run", daily_limit_micro=1)), producer=producer)
        denied(guard.check("gpt-a", **CALL, session_id="s", trace_id="r", feature="f", request_id="q"))
        (event,) = producer.events
    assert (event.session_id, event.trace_id, event.feature, event.request_id) == ("s", "r", "f", "q")
    assert (event.status, event.error_type) == ("BLOCKED", "CostLimitExceeded")


def test_a_feature_has_a_budget_as_an_agent_has() -> None:
    guard = guard_at(None, rows.policy(Policy(org_id="acme", scope="feature", name="sum", daily_limit_micro=1)))
    assert denied(guard.check("gpt-a", **CALL, feature="sum")).body["name"] == "sum"
    assert guard.check("gpt-a", **CALL, feature="other")


def test_sessions_that_nobody_limits_are_resolved_once() -> None:
    guard = guard_at(None, rows.policy(default("user", daily_limit_micro=10**9)))
    for number in range(50):
        allowed(guard.check("gpt-a", **CALL, user="ann", session_id=f"s{number}"))
    assert len(guard._known.limits._orgs["acme"].known) == 1


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accounts, "SWEPT_FROM", 100)


@pytest.mark.usefixtures("few")
def test_the_accounts_of_sessions_are_given_back_when_their_day_is_over() -> None:
    time = Time(NOON)
    guard: Guard = guard_at(time, rows.policy(default("session")), rows.policy(default("user")))
    feed(guard, *(rows.spend(2_000_000, 1_500_000, scope="session", name=f"s{number}") for number in range(150)))
    flying = allowed(guard.check("gpt-a", **CALL, session_id="busy"))
    assert not guard.check("gpt-a", **CALL, session_id="s7")
    time.pass_(86_400)
    later = {"scope": "session", "at_s": NOON + 86_400}
    feed(guard, *(rows.spend(1, 1_500_000, name=f"t{number}", **later) for number in range(60)))  # type: ignore[arg-type]
    known = guard._known.accounts._accounts
    assert not [key for key in known if "/session/s" in key]
    assert [key for key in known if "/session/busy/" in key], "what is in flight stays"
    flying.reservation.settle()
    feed(guard, rows.spend(2_000_000, 1_500_000, scope="session", name="s7", at_s=NOON + 86_400))
    assert not guard.check("gpt-a", **CALL, session_id="s7"), "whoever was asked about before is read anew"
