"""The spend status of a user, worked out by hand: limits, rounding, periods, own keys, time zones, unknown users."""

import json
from collections.abc import Iterator
from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.priced_rows import insert, row
from tollmeter.admin.scope_use import use_of
from tollmeter.admin.spend_status import UserNotFoundError, assert_available, seen_users, spend_status
from tollmeter.broker.policies import Rules
from tollmeter.producers.guard.guard import CallRefused, CostLimitExceeded
from tollmeter.schemas.policy import Limit, Member, Policy
from tollmeter.settings import Settings
from tollmeter.sinks.clickhouse.client import ClickHouse, connect
from tollmeter.streams.rules.limits.periods import period_of
from tollmeter.streams.rules.limits.policies import Groups

pytestmark = pytest.mark.stack

NOW = datetime(2026, 11, 22, 10, 0, tzinfo=UTC)
KEY = "0123456789abcdef"
BLUE = Member(org_id="acme", name="ann", groups=("blue",))


def call(number: int, at: str, **changed: Any) -> dict[str, Any]:
    when = datetime.fromisoformat(at).replace(tzinfo=UTC)
    fields = {"org_id": "acme", "user_id": "ann", "status": "OK", "provider": "openai", "api_key_id": KEY}
    return row(number, **({"event_time": when, "received_at": when} | fields | changed))


CALLS = [
    # today: 0.5 EUR, and two thirds of a micro-EUR that round up to one only once
    call(1, "2026-11-22T09:00", cost_eur_nano=500_000_000, cost_nano=1, billing_scope="ORG", input_tokens=1_000),
    call(2, "2026-11-22T00:00", at_risk_eur_nano=1_333, billing_scope="UNKNOWN", output_tokens=200),
    call(3, "2026-11-22T08:00", cost_eur_nano=333, api_key_id="k2", provider="google", billing_scope="ORG"),
    # refused: no request, no cost
    call(4, "2026-11-22T08:01", cost_eur_nano=0, status="BLOCKED", billing_scope="ORG"),
    # the users' own money
    call(5, "2026-11-22T08:02", cost_eur_nano=90_000_000, billing_scope="USER", input_tokens=7),
    # earlier this month, to its first instant
    call(6, "2026-11-21T23:59:59.999999", cost_eur_nano=1_000_000_000, billing_scope="ORG", input_tokens=50),
    call(7, "2026-11-01T00:00", cost_eur_nano=1_001, billing_scope="ORG", input_tokens=5),
    # October; another user; another organisation; no rate known
    call(8, "2026-10-31T23:59:59.999999", cost_eur_nano=7_000_000_000, billing_scope="ORG"),
    call(9, "2026-11-22T09:00", cost_eur_nano=7_000_000_000, user_id="bob", api_key_id="k9"),
    call(10, "2026-11-22T09:00", cost_eur_nano=7_000_000_000, org_id="umbra"),
    # made tomorrow, or later today, by a clock that runs ahead: charged when it arrived
    call(11, "2026-11-23T09:00", received_at=datetime(2026, 11, 22, 9, tzinfo=UTC), cost_eur_nano=0, api_key_id=""),
    call(12, "2026-11-22T05:00", received_at=datetime(2026, 11, 21, 23, tzinfo=UTC), cost_eur_nano=0, api_key_id=""),
]
ORG = Policy(
    org_id="acme", applies="each_member", currency="EUR", daily_limit_micro=1_000_000, monthly_limit_micro=9_000_000
)
GROUP = Policy(
    org_id="acme",
    scope="group",
    name="blue",
    applies="each_member",
    currency="EUR",
    monthly_limit_micro=1_500_000,
    warn_threshold_pct=60,
)


@pytest.fixture(scope="module", name="ledger")
def seeded(ledger_settings: Settings) -> Iterator[ClickHouse]:
    client = connect(ledger_settings)
    insert(client, CALLS, offset=1)
    insert(client, CALLS[:4], offset=2)  # delivered twice
    yield client
    client.close()


def rules(*policies: Policy, members: tuple[Member, ...] = (BLUE,)) -> Rules:
    return Rules({policy.policy_id: policy for policy in policies}, Groups(members))


def test_the_document_that_clients_know(ledger: ClickHouse) -> None:
    golden = Path(__file__).parents[1] / "golden" / "spend_status.json"
    document = spend_status(ledger, rules(ORG, GROUP), "acme", "ann", NOW).document()
    assert json.dumps(document, indent=2, ensure_ascii=False) == golden.read_text(encoding="utf-8").strip()


def test_without_a_limit_limits_and_remaining_are_absent(ledger: ClickHouse) -> None:
    document = spend_status(ledger, rules(), "acme", "ann", NOW).document()
    assert not [name for name in document if name.startswith(("cost_limit", "cost_remaining"))]
    assert (document["cost_used_today_micro_eur"], document["warn_threshold_pct"]) == (500_002, 80)


def test_a_known_user_without_calls_has_zeros_and_no_keys(ledger: ClickHouse) -> None:
    idle = Member(org_id="acme", name="idle")
    document = spend_status(ledger, rules(ORG, members=(idle,)), "acme", "idle", NOW).document()
    assert "by_provider_keys" not in document
    assert document["cost_used_month_micro_eur"] == document["requests_used_today"] == 0
    assert document["cost_remaining_today_micro_eur"] == 1_000_000


def test_own_keys_are_shown_apart_with_what_would_remain(ledger: ClickHouse) -> None:
    document = spend_status(ledger, rules(ORG, GROUP), "acme", "ann", NOW, billing_scope_org=False).document()
    assert not [name for name in document if name.startswith("cost_limit")]
    assert (document["billing_scope_org"], document["cost_used_today_micro_eur"]) == (False, 90_000)
    assert document["cost_remaining_today_micro_eur"] == 1_000_000 - 90_000
    assert document["cost_remaining_month_micro_eur"] == 1_500_000 - 90_000
    assert (document["requests_used_today"], document["tokens_used_month"]) == (5, 1_262), "all calls, whoever pays"
    assert document["warn_threshold_pct"] == 60
    assert not {"limits", "applies"} & document.keys(), "no limit concerns them"
    free = spend_status(ledger, rules(), "acme", "ann", NOW, billing_scope_org=False).document()
    assert "cost_remaining_today_micro_eur" not in free


def test_the_limit_that_binds_is_shown_in_its_own_currency(ledger: ClickHouse) -> None:
    """In EUR nothing limits her; in USD and in requests something does."""
    pool = Policy(org_id="acme", daily_limit_micro=1)  # 1,000 nano-USD; call 1 cost one of them
    web = Policy(org_id="acme", scope="group", name="blue", limits=(Limit(period="day", measure="requests", amount=2),))
    other = Policy(org_id="acme", scope="group", name="red", daily_limit_micro=1)
    found = spend_status(ledger, rules(pool, web, other), "acme", "ann", NOW)
    assert "cost_limit_today_micro_eur" not in found.document()
    assert found.limits is not None
    assert [
        (limit.scope, limit.name, limit.unit, limit.limit, limit.used, limit.percent) for limit in found.limits
    ] == [
        ("group", "blue", "requests", 2, 0, 0),
        ("org", "", "USD", 1_000, 1, 0),
    ]
    assert found.applies == "pool"


def test_the_user_s_own_policy_wins_whole(ledger: ClickHouse) -> None:
    own = Policy(org_id="acme", scope="user", name="ann", currency="EUR", monthly_limit_micro=20_000_000)
    document = spend_status(ledger, rules(ORG, GROUP, own), "acme", "ann", NOW).document()
    assert "cost_limit_today_micro_eur" not in document
    assert document["cost_remaining_month_micro_eur"] == 20_000_000 - 1_500_003


def test_a_day_is_the_policy_s_own(ledger: ClickHouse) -> None:
    """In Kolkata 22 November began at 18:30 the day before, so call 6 is today's there."""
    kolkata = ORG.model_copy(update={"timezone": "Asia/Kolkata"})
    assert spend_status(ledger, rules(kolkata), "acme", "ann", NOW).cost_used_today_micro_eur == 1_500_002
    both = GROUP.model_copy(update={"daily_limit_micro": 1_500_003})
    found = spend_status(ledger, rules(kolkata, both), "acme", "ann", NOW)
    assert (found.cost_limit_today_micro_eur, found.cost_remaining_today_micro_eur) == (1_000_000, 0)
    larger = kolkata.model_copy(update={"daily_limit_micro": 3_000_000})
    found = spend_status(ledger, rules(larger, both), "acme", "ann", NOW)
    assert (found.cost_limit_today_micro_eur, found.cost_remaining_today_micro_eur) == (1_500_003, 1_000_001)


USED_UP = [
    (Policy(org_id="usd", daily_limit_micro=5), "daily cost"),
    (Policy(org_id="usd", applies="each_member", monthly_limit_micro=5), "monthly cost"),
    (Policy(org_id="usd", scope="user", name="ann", daily_limit_micro=5, monthly_limit_micro=5), "daily cost"),
    (Policy(org_id="usd", limits=(Limit(period="week", amount=5),)), "weekly cost"),
    (Policy(org_id="usd", limits=(Limit(period="day", measure="requests", amount=1),)), "daily request"),
    (Policy(org_id="usd", daily_limit_micro=6), ""),
    (Policy(org_id="usd", scope="group", name="elsewhere", daily_limit_micro=1), ""),
]


@pytest.mark.parametrize(("policy", "said"), USED_UP, ids=[f"{said} {case.policy_id}" for case, said in USED_UP])
def test_a_limit_in_any_currency_ends_what_is_available(ledger: ClickHouse, policy: Policy, said: str) -> None:
    insert(ledger, [call(500, "2026-11-22T09:00", org_id="usd", cost_nano=5_000)], offset=40)
    if not said:
        assert_available(ledger, rules(policy), "usd", "ann", NOW)
        return
    with pytest.raises(CostLimitExceeded, match=f"^llm cost limit exceeded: {said} limit reached$"):
        assert_available(ledger, rules(policy), "usd", "ann", NOW)
    found = spend_status(ledger, rules(policy), "usd", "ann", NOW).limits
    assert found is not None
    assert (found[0].remaining, found[0].percent) == (0, 100)


AVAILABLE = [
    ("below both", 500_003, 1_500_004, None),
    ("the day is spent to the last micro", 500_002, 9_000_000, "daily"),
    ("the month is spent", 900_000, 1_500_003, "monthly"),
    ("both: the day is named", 500_002, 1_500_003, "daily"),
]


@pytest.mark.parametrize(("daily", "monthly", "said"), [case[1:] for case in AVAILABLE], ids=[c[0] for c in AVAILABLE])
def test_assert_available(ledger: ClickHouse, daily: int, monthly: int, said: str | None) -> None:
    limits = rules(ORG.model_copy(update={"daily_limit_micro": daily, "monthly_limit_micro": monthly}))
    assert_available(ledger, limits, "acme", "ann", NOW, billing_scope="USER")
    if said is None:
        assert_available(ledger, limits, "acme", "ann", NOW)
        return
    with pytest.raises(CostLimitExceeded) as refused:
        assert_available(ledger, limits, "acme", "ann", NOW, billing_scope="UNKNOWN")
    assert str(refused.value) == f"llm cost limit exceeded: {said} cost limit reached"


def test_without_an_exchange_rate_what_is_available_fails_as_set(ledger: ClickHouse) -> None:
    """A limit in EUR cannot be applied to a call that nobody can convert: refused when closed, as the guard does."""
    member = rules(ORG.model_copy(update={"org_id": "fx"}))
    insert(ledger, [call(600, "2026-11-22T09:00", org_id="fx", cost_nano=10**9, cost_eur_nano=1)], offset=60)

    def asked(rules_: Rules, org: str = "fx") -> str:
        try:
            assert_available(ledger, rules_, org, "ann", NOW, fail="closed")
        except CallRefused as refused:
            return refused.deny.error
        return ""

    assert_available(ledger, member, "fx", "ann", NOW)
    assert asked(member) == "budget_unknown", "no rate is known at all"
    assert asked(rules(Policy(org_id="fx", daily_limit_micro=10**9))) == "", "a limit in USD needs none"
    for day, said in (("2026-11-23", "budget_unknown"), ("2026-11-20", "")):
        rate = [("book", day, "EUR", 900_000_000, "test")]
        ledger.insert_rows("fx_rates", ("price_book", "day", "currency", "per_usd_nano", "source"), rate)
        assert asked(member) == said, day
    insert(ledger, [call(601, "2026-11-22T09:01", org_id="fx", cost_nano=10**9)], offset=61)
    assert asked(member) == "budget_unknown", "a call misses in what was used"
    # it counts all the same: 1 USD x 0.9 x 1.05 beside the 1 nano-EUR that is known, in micro-EUR rounded up
    for limit, passes in ((945_001, False), (945_002, True)):
        member_of = ORG.model_copy(update={"org_id": "fx", "daily_limit_micro": limit, "monthly_limit_micro": None})
        with nullcontext() if passes else pytest.raises(CostLimitExceeded):
            assert_available(ledger, rules(member_of), "fx", "ann", NOW)
    assert_available(ledger, member, "fx", "ann", NOW, billing_scope="USER", fail="closed")
    spent = rules(ORG.model_copy(update={"org_id": "fx", "daily_limit_micro": 1}))
    with pytest.raises(CostLimitExceeded):
        assert_available(ledger, spent, "fx", "ann", NOW, fail="closed")


def test_an_unknown_user_is_not_found_but_may_use_a_key_of_his_own(ledger: ClickHouse) -> None:
    for known in ("bob", "ann"):
        spend_status(ledger, rules(members=()), "acme", known, NOW)  # seen in an event
    for org, user in (("acme", "eve"), ("umbra", "bob"), ("acme", "")):
        with pytest.raises(UserNotFoundError, match=r"^user not found$"):
            spend_status(ledger, rules(), org, user, NOW)
    with pytest.raises(UserNotFoundError):
        assert_available(ledger, rules(), "acme", "eve", NOW)
    assert_available(ledger, rules(), "acme", "eve", NOW, billing_scope="USER")


def test_many_users_are_looked_up_at_once(ledger: ClickHouse) -> None:
    assert seen_users(ledger, "acme", ["ann", "bob", "eve", "ann", ""]) == {"ann", "bob"}
    assert seen_users(ledger, "umbra", ["ann", "bob"]) == {"ann"}
    assert seen_users(ledger, "acme", [""]) == set()


def test_the_dearest_twenty_keys(ledger_settings: Settings, ledger: ClickHouse) -> None:
    many = [
        call(100 + n, "2026-11-05T00:00", user_id="cat", api_key_id=f"k{n:02}", cost_eur_nano=n * 1_000)
        for n in range(25)
    ]
    insert(ledger, many, offset=9)
    keys = spend_status(ledger, rules(), "acme", "cat", NOW).by_provider_keys
    assert keys is not None
    assert [key.fingerprint for key in keys] == [*(f"k{n:02}" for n in range(24, 4, -1)), ""]
    assert (keys[-1].label, keys[-1].cost_month_micro_eur) == ("other", 0 + 1 + 2 + 3 + 4)
    assert sum(key.cost_month_micro_eur for key in keys) == sum(range(25)), "the rows add up to the month"


SCOPES = [
    ("group", "blue", 2),
    ("user", "ann", 1),
    ("api_key", "k1", 3),
    ("client_ip", "10.0.0.1", 4),
    ("agent", "bot", 5),
    ("model", "gpt-5", 6),
    ("provider", "google", 7),
    ("tag", "team=a=b", 1),
    ("tag", "team=a", 0),
]


def test_every_scope_has_its_own_use(ledger: ClickHouse) -> None:
    columns = ["group_id", "user_id", "api_key_id", "client_ip", "agent", "model", "provider"]
    names = ["blue", "ann", "k1", "10.0.0.1", "bot", "gpt-5", "google"]
    rows = []
    for place, (column, name) in enumerate(zip(columns, names, strict=True)):
        amount = {"group_id": 2, "user_id": 1, "api_key_id": 3, "client_ip": 4, "agent": 5, "model": 6, "provider": 7}[
            column
        ]
        plain = {"user_id": "x", "api_key_id": "x", "provider": "x", "org_id": f"scopes-{column}"}
        tags = [{"key": "team", "value": "a=b"}] if column == "user_id" else []
        rows.append(
            call(300 + place, "2026-11-05T00:00", **(plain | {column: name, "cost_nano": amount, "tags": tags}))
        )
        rows.append(call(320 + place, "2026-11-05T00:00", **(plain | {"cost_nano": 1_000})))
    insert(ledger, rows, offset=20)
    month = period_of("month", "UTC", int(NOW.timestamp()))
    for scope, name, expected in SCOPES:
        column = {"group": "group_id", "user": "user_id", "api_key": "api_key_id", "tag": "user_id"}.get(scope, scope)
        assert use_of(ledger, f"scopes-{column}", scope, name, month).usd_nano == expected, scope
    assert use_of(ledger, "scopes-agent", "org", "", month).usd_nano == 1_005


def test_use_tells_the_units_apart(ledger: ClickHouse) -> None:
    rows = [
        call(400, "2026-11-05T00:00", org_id="units", cost_nano=1, cost_eur_nano=2, cost_rub_nano=3, input_tokens=4),
        call(
            401,
            "2026-11-05T00:00",
            org_id="units",
            at_risk_nano=10,
            at_risk_eur_nano=20,
            at_risk_rub_nano=30,
            output_tokens=40,
        ),
    ]
    insert(ledger, rows, offset=30)
    use = use_of(ledger, "units", "org", "", period_of("rolling24h", "UTC", int(rows[0]["event_time"].timestamp())))
    assert [use.of(unit) for unit in ("USD", "EUR", "RUB", "tokens", "requests")] == [11, 22, 33, 44, 2]
    assert Limit(period="rolling", hours=24, amount=1).window == "rolling24h"


def test_what_is_used_says_when_rates_are_too_old_or_missing(ledger_settings: Settings, ledger: ClickHouse) -> None:
    """An amount that rests on an old rate and a margin says so, one that lacks calls never looks like the whole."""
    rules = Rules({ORG.policy_id: ORG}, Groups([BLUE]))
    assert "fx" not in spend_status(ledger, rules, "acme", "ann", NOW).document()
    insert(ledger, [call(50, "2026-11-22T09:30", cost_nano=10**9, at_risk_eur_nano=945_000_000)])
    found = spend_status(ledger, rules, "acme", "ann", NOW)
    assert found.cost_used_today_micro_eur == 500_001 + 1 + 945_000
    assert (found.fx, {limit.fx for limit in found.limits or ()}) == ("stale", {"stale"})
    insert(ledger, [call(51, "2026-11-22T09:31", cost_nano=10**9)])
    found = spend_status(ledger, rules, "acme", "ann", NOW)
    assert (found.document()["fx"], {limit.fx for limit in found.limits or ()}) == ("none", {"none"})
    in_usd = Policy(org_id="acme", applies="each_member", daily_limit_micro=1)
    (limit,) = spend_status(ledger, Rules({"x": in_usd}, Groups([BLUE])), "acme", "ann", NOW).limits or ()
    assert limit.fx is None
