"""The guard's decisions, one table per rule: bodies and statuses are those that clients know."""

import json
import threading
import time
from datetime import UTC, datetime
from typing import Any

import pytest

from tests import guard_rows as rows
from tests.guard_rows import NOON, USD, Time, feed
from tollmeter.producers.client.client import UsageProducer
from tollmeter.producers.guard.guard import Allow, CallRefused, CostLimitExceeded, Deny, Guard, overshoot_bound
from tollmeter.schemas.access import Block, RateLimit
from tollmeter.schemas.model_rules import ModelRule
from tollmeter.schemas.policy import Limit, Member, Policy
from tollmeter.settings import Settings, SettingsError

BOOK = rows.book(gpt_a=(1_000_000, 10_000_000), gpt_a_large=(5_000_000, 50_000_000), gpt_b=(2_000_000, 2_000_000))
"""gpt-a: 1,000 nano-USD per input token, 10,000 per output token."""


def guard_at(time_: Time | None = None, *records: rows.Record, **how: Any) -> Guard:
    guard = (time_ or Time()).guard(**how)
    feed(guard, BOOK, rows.layout(), *records)
    return guard


def denied(decision: Allow | Deny) -> Deny:
    assert isinstance(decision, Deny), decision
    return decision


def allowed(decision: Allow | Deny) -> Allow:
    assert isinstance(decision, Allow), decision
    return decision


# ---------------------------------------------------------------- estimate and cap


@pytest.mark.parametrize(
    ("asked", "est_nano"),
    [
        pytest.param({"prompt_tokens": 10}, 10_000, id="tokens as given"),
        pytest.param({"prompt_chars": 40}, 10_000, id="a quarter of the characters"),
        pytest.param({"prompt_chars": 41}, 11_000, id="a started token counts"),
        pytest.param({"prompt": "x" * 40}, 10_000, id="a text without a tokenizer"),
        pytest.param({"prompt_tokens": 10, "prompt_chars": 4_000}, 10_000, id="tokens win over characters"),
        pytest.param({"prompt_tokens": 10, "max_output_tokens": 3}, 40_000, id="the most it may put out"),
        pytest.param({}, 0, id="nothing is known of the prompt"),
    ],
)
def test_estimate(asked: dict[str, Any], est_nano: int) -> None:
    assert allowed(guard_at().check("gpt-a", **asked)).est_nano == est_nano


def test_tokenizer_counts_the_prompt() -> None:
    guard = guard_at(tokenizer=lambda prompt, model: len(prompt.split()) * (2 if model == "gpt-a" else 1))
    assert allowed(guard.check("gpt-a", prompt="one two three")).est_nano == 6_000


def test_expected_output_is_a_setting() -> None:
    guard = guard_at(settings=Settings(guard_output_tokens=7))
    assert allowed(guard.check("gpt-a", prompt_tokens=0)).est_nano == 70_000
    assert allowed(guard.check("gpt-a", prompt_tokens=0, max_output_tokens=1)).est_nano == 10_000


@pytest.mark.parametrize(
    ("model", "est_nano", "status"),
    [
        pytest.param("gpt-a", 1_000, "PRICED", id="known"),
        pytest.param("gpt-a-large-2031-01-01", 5_000, "PARTIAL", id="without its date"),
        pytest.param("gpt-a-tiny", 5_000, "UNKNOWN_MODEL", id="the family's dearest"),
        pytest.param("gpt-z", 5_000, "UNKNOWN_MODEL", id="no family: the provider's dearest"),
        pytest.param("mystery", None, "UNKNOWN_MODEL", id="no provider either: nobody knows"),
    ],
)
def test_unknown_models(model: str, est_nano: int | None, status: str) -> None:
    decision = allowed(guard_at().check(model, prompt_tokens=1))
    assert (decision.est_nano, decision.price_status) == (est_nano, status)


def test_what_nobody_can_price_is_refused_when_closed() -> None:
    decision = denied(guard_at(settings=Settings(guard_fail="closed")).check("mystery", prompt_tokens=1))
    assert (decision.http_status, decision.error) == (503, "price_unknown")


@pytest.mark.parametrize(("tokens", "passes"), [(50_000, True), (50_001, False), (10**12, False)])
def test_cap_on_one_call(tokens: int, passes: bool) -> None:
    assert bool(guard_at().check("gpt-a", prompt_tokens=tokens)) is passes


@pytest.mark.parametrize("status", [402, 429])
def test_body_of_the_cap_is_exact(status: int) -> None:
    guard = guard_at(settings=Settings(guard_http_status=status))
    decision = denied(guard.check("gpt-a", prompt_tokens=84_000))
    assert decision.http_status == status
    assert json.dumps(decision.body, separators=(",", ":")) == (
        '{"ok":false,"error":"cost_cap","max_usd":0.05,"est_usd":0.084}'
    )
    with pytest.raises(
        CallRefused,
        match=r"^cost_cap: this call may cost 0\.084 USD, and one call may cost at most 0\.05 USD: ask for fewer",
    ):
        decision.raise_if_denied()


def test_cap_is_a_setting_and_an_argument() -> None:
    assert guard_at(settings=Settings(max_usd="0.2")).check("gpt-a", prompt_tokens=200_000)
    assert not guard_at(max_usd=0.01).check("gpt-a", prompt_tokens=10_001)
    assert Settings.from_environment({"TOLLMETER_GUARD_HTTP_STATUS": "429"}).guard_http_status == 429
    with pytest.raises(SettingsError, match="TOLLMETER_GUARD_HTTP_STATUS"):
        Settings.from_environment({"TOLLMETER_GUARD_HTTP_STATUS": "500"})


@pytest.mark.parametrize("fail", ["open", "closed"])
def test_cap_holds_whatever_is_stale_and_whoever_pays(fail: str) -> None:
    time_ = Time()
    guard = guard_at(time_, rows.as_of(NOON * 1_000), settings=Settings(guard_fail=fail))  # type: ignore[arg-type]
    time_.pass_(1_000)
    for scope in ("ORG", "USER", "UNKNOWN"):
        decision = denied(guard.check("gpt-a", prompt_tokens=60_000, org="acme", user="ann", billing_scope=scope))
        assert decision.error == "cost_cap"


def test_quote_of_a_finished_call() -> None:
    guard = guard_at()
    assert guard.quote("openai", "gpt-a", input_tokens=3, output_tokens=2)[:2] == (23_000, "PRICED")
    assert guard.quote("openai", "gpt-a", input_tokens=3, output_tokens=2, web_searches=1).status == "PARTIAL"
    unknown = guard.quote("openai", "gpt-a-new", input_tokens=1)
    assert (unknown.nano, unknown.status, unknown.at_risk_nano) == (None, "UNKNOWN_MODEL", 5_000)
    assert Time().guard().quote("openai", "gpt-a", input_tokens=3).nano is None


# ---------------------------------------------------------------- budgets

ORG = Policy(org_id="acme", daily_limit_micro=1_000_000, monthly_limit_micro=10_000_000)
CALL: dict[str, Any] = {"prompt_tokens": 10_000, "org": "acme", "user": "ann"}
"""Costs 0.01 USD."""


@pytest.mark.parametrize(
    ("spent", "message"),
    [
        pytest.param([rows.spend(USD)], "daily cost limit reached", id="daily"),
        pytest.param([rows.spend(10 * USD, 10 * USD, window="month")], "monthly cost limit reached", id="monthly"),
        pytest.param(
            [rows.spend(USD), rows.spend(10 * USD, 10 * USD, window="month")],
            "daily cost limit reached",
            id="daily first",
        ),
        pytest.param(
            [rows.spend(USD - 1), rows.spend(11 * USD, 10 * USD, window="month")],
            "monthly cost limit reached",
            id="used up before not enough left",
        ),
        pytest.param([rows.spend(USD - 9_999_999)], "daily cost limit reached", id="too little is left"),
    ],
)
def test_text_of_a_used_up_budget(spent: list[rows.Record], message: str) -> None:
    decision = denied(guard_at(None, rows.policy(ORG), *spent).check("gpt-a", **CALL))
    assert (decision.http_status, decision.body["error"]) == (402, "CostLimitExceeded")
    assert decision.body["message"] == f"llm cost limit exceeded: {message}"
    assert decision.body["policy_id"] == ORG.policy_id
    with pytest.raises(CostLimitExceeded, match=f"^llm cost limit exceeded: {message}$"):
        decision.raise_if_denied()


@pytest.mark.parametrize(
    ("limit", "window", "unit", "spent", "words"),
    [
        (Limit(period="week", amount=1_000_000), "week", "USD", USD, "weekly cost"),
        (Limit(period="rolling", hours=24, amount=1_000_000), "rolling24h", "USD", USD, "rolling 24 h cost"),
        (Limit(period="day", measure="tokens", amount=10_000), "day", "tokens", 1, "daily token"),
        (Limit(period="month", measure="requests", amount=5), "month", "requests", 5, "monthly request"),
    ],
)
def test_other_limits(limit: Limit, window: str, unit: str, spent: int, words: str) -> None:
    guard = guard_at(None, rows.policy(Policy(org_id="acme", limits=(limit,))))
    assert guard.check("gpt-a", **CALL)
    feed(guard, rows.spend(spent, limit.amount, window=window, unit=unit))
    decision = denied(guard.check("gpt-a", **CALL))
    assert decision.body["message"] == f"llm cost limit exceeded: {words} limit reached"


def test_limit_in_another_currency_counts_at_the_latest_rate() -> None:
    guard = guard_at(None, rows.policy(Policy(org_id="acme", daily_limit_micro=9_000, currency="EUR")))
    held = allowed(guard.check("gpt-a", **CALL))  # 0.01 USD at 0.9 = 0.009 EUR: all of it
    assert not guard.check("gpt-a", **{**CALL, "prompt_tokens": 1})
    held.reservation.settle(5_000_000)
    assert guard.check("gpt-a", **{**CALL, "prompt_tokens": 5_000})


def old_rate(day: str, **staleness: int) -> rows.Record:
    document = json.loads(BOOK[2] or b"")
    document["fx"] = [{"day": day, "currency": "EUR", "per_usd_nano": 900_000_000, "source": "test"}]
    document["fx_staleness"] = {"max_age_days": 7, "margin_pct": 5, **staleness}
    return BOOK[0], BOOK[1], json.dumps(document).encode()


@pytest.mark.parametrize(("day", "stale"), [("2026-11-15", False), ("2026-11-14", True), ("2024-12-31", True)])
def test_limit_in_another_currency_goes_on_with_an_old_rate_and_a_margin_and_says_so(day: str, stale: bool) -> None:
    """0.01 USD at 0.9 are 0.009 EUR, with the margin of 5 % 0.00945: a limit between the two tells them apart."""
    assert datetime.fromtimestamp(NOON, UTC).date().isoformat() == "2026-11-22"
    for limit, passes in ((9_000, not stale), (9_449, not stale), (9_450, True)):
        guard = guard_at(None, rows.policy(Policy(org_id="acme", daily_limit_micro=limit, currency="EUR")))
        feed(guard, old_rate(day))
        decision = guard.check("gpt-a", **CALL)
        assert bool(decision) == passes, limit
        if isinstance(decision, Allow):
            assert (decision.fx_stale, decision.stale) == (stale, False)
        else:
            assert decision.body["fx_stale"] is True


@pytest.mark.parametrize(
    ("spent", "usd_nano", "counted", "marked"),
    [
        pytest.param(0, USD, 945_000_000, True, id="no call had a rate: 1 USD x 0.9 x 1.05"),
        pytest.param(
            450_000_000, USD, 450_000_000 + 495_000_000, True, id="half of them had one: at most what is left"
        ),
        pytest.param(900_000_000, USD, 900_000_000, False, id="all had one"),
        pytest.param(894_000_000, USD, 894_000_000, False, id="a hundredth may be the rates' doing"),
        pytest.param(945_000_000, USD, 945_000_000, False, id="all had an old one, and its margin"),
        pytest.param(0, 0, 0, False, id="nothing was used"),
        pytest.param(500_000_000, None, 500_000_000, False, id="a row of before, which does not say"),
    ],
)
def test_calls_made_before_a_currency_had_a_rate_count_by_the_last_one_and_a_margin_and_it_says_so(
    spent: int, usd_nano: int | None, counted: int, marked: bool
) -> None:
    """What the row lacks is never 0 to a limit. The call costs 0.01 USD, at 0.9 that is 9,000,000 nano-EUR."""
    for short, passes in ((0, True), (1_000, False)):
        limit = counted + 9_000_000 - short
        policy = rows.policy(Policy(org_id="acme", daily_limit_micro=limit // 1_000, currency="EUR"))
        guard = guard_at(None, policy, rows.spend(spent, limit, unit="EUR", usd_nano=usd_nano))
        feed(guard, old_rate("2026-11-22"))
        decision = guard.check("gpt-a", **CALL)
        assert bool(decision) == passes
        if isinstance(decision, Allow):
            assert decision.fx_stale == marked
        else:
            assert decision.body.get("fx_stale", False) == marked
            assert decision.body["used"] == counted


def test_a_rate_of_tomorrow_is_no_rate_yet_and_one_in_usd_is_never_stale() -> None:
    limit = rows.policy(Policy(org_id="acme", daily_limit_micro=9_000, currency="EUR"))
    guard = guard_at(None, limit, settings=Settings(guard_fail="closed"))
    feed(guard, old_rate("2026-11-23"))
    assert denied(guard.check("gpt-a", **CALL)).error == "budget_unknown"
    guard = guard_at(None, rows.policy(ORG))
    feed(guard, old_rate("2024-12-31"))
    assert not allowed(guard.check("gpt-a", **CALL)).fx_stale


def test_limit_in_a_currency_without_any_rate_fails_as_set() -> None:
    """Nothing can be set aside for it, so it is never taken for kept: refused when closed, said when open."""
    limit = rows.policy(Policy(org_id="acme", daily_limit_micro=9_000, currency="RUB"))
    refused = denied(guard_at(None, limit, settings=Settings(guard_fail="closed")).check("gpt-a", **CALL))
    assert (refused.http_status, refused.error) == (503, "budget_unknown")
    assert refused.body["message"].startswith("no exchange rate is known for the currency of a limit")
    assert allowed(guard_at(None, limit).check("gpt-a", **CALL)).stale


def test_scopes_of_a_call() -> None:
    """Every scope that the call names is limited; what it does not name is not."""
    for scope, name, named in (
        ("api_key", "k1", {"api_key_id": "k1"}),
        ("client_ip", "10.0.0.1", {"client_ip": "10.0.0.1"}),
        ("provider", "openai", {"provider": "openai"}),
        ("provider", "openai", {}),
        ("model", "gpt-a", {}),
        ("agent", "bot", {"agent": "bot"}),
        ("tag", "team=x", {"tags": {"team": "x", "y": "z"}}),
        ("group", "red", {"groups": ["red"]}),
        ("user", "ann", {}),
    ):
        entry = Policy(org_id="acme", scope=scope, name=name, daily_limit_micro=1_000)  # type: ignore[arg-type]
        guard = guard_at(None, rows.policy(entry))
        decision = denied(guard.check("gpt-a", **{**CALL, **named}))
        assert (decision.body["scope"], decision.body["name"]) == (scope, name)
        assert guard.check("gpt-b", prompt_tokens=1, org="acme", user="bob")
        assert guard.check("gpt-a", **{**CALL, **named, "org": "other"})


def test_membership_decides_limits_of_each_member() -> None:
    red = Policy(org_id="acme", scope="group", name="red", applies="each_member", daily_limit_micro=5_000)
    wide = Policy(org_id="acme", applies="each_member", daily_limit_micro=500_000)
    guard = guard_at(None, rows.policy(red), rows.policy(wide))
    assert guard.check("gpt-a", **CALL)
    feed(guard, rows.member(Member(org_id="acme", name="ann", groups=("inner",))))
    feed(guard, rows.member(Member(org_id="acme", kind="group", name="inner", groups=("red",))))
    decision = denied(guard.check("gpt-a", **CALL))
    assert (decision.body["scope"], decision.body["name"], decision.body["policy_id"]) == ("user", "ann", red.policy_id)
    assert guard.check("gpt-a", **{**CALL, "user": "bob"})
    assert guard.apply("policies", "member:acme/user/ann", None)
    assert guard.check("gpt-a", **CALL)


def test_own_key_is_never_asked_for_budgets() -> None:
    spent_up = [rows.policy(ORG), rows.spend(5 * USD)]
    guard = guard_at(None, *spent_up, settings=Settings(guard_fail="closed"))
    assert allowed(guard.check("gpt-a", **CALL, billing_scope="USER")).reservation.bounds == ()
    for scope in ("ORG", "UNKNOWN"):
        assert not guard.check("gpt-a", **CALL, billing_scope=scope)


def with_a_free_provider() -> bytes:
    free = {
        "rule_id": "override:local/local/*/*",
        "provider": "local",
        "model": "*",
        "context": "*",
        "rate_pico": {},
        "priced": [],
        "source": "own",
        "free": True,
    }
    document = json.loads(BOOK[2] or b"")
    document["rules"].append(free)
    return json.dumps(document).encode()


def test_a_free_call_needs_no_exchange_rate() -> None:
    """Limits of money do not hold for it, and one of requests is known without any rate."""
    calls = Limit(period="day", measure="requests", amount=9)
    limit = rows.policy(Policy(org_id="acme", daily_limit_micro=9_000, currency="RUB", limits=(calls,)))
    guard = guard_at(None, limit, settings=Settings(guard_fail="closed"))
    assert guard.apply("prices", "x", with_a_free_provider())
    assert denied(guard.check("gpt-a", **CALL)).error == "budget_unknown"
    assert allowed(guard.check("llama", **{**CALL, "provider": "local"})).price_status == "FREE"


def test_free_model_passes_budgets_of_money_only() -> None:
    calls = Policy(org_id="acme", limits=(Limit(period="day", measure="requests", amount=1),))
    guard = guard_at(None, rows.policy(ORG), rows.spend(5 * USD))
    assert guard.apply("prices", "x", with_a_free_provider())
    decision = allowed(guard.check("llama", provider="local", org="acme", user="ann", prompt_tokens=10**6))
    assert (decision.est_nano, decision.price_status) == (0, "FREE")
    feed(guard, rows.policy(calls.model_copy(update={"currency": "EUR"})))
    assert guard.check("llama", provider="local", org="acme", user="ann")
    assert denied(guard.check("llama", provider="local", org="acme", user="ann")).body["unit"] == "requests"


def test_reservations_count_and_settle() -> None:
    guard = guard_at(None, rows.policy(ORG.model_copy(update={"daily_limit_micro": 30_000})))
    first, second = allowed(guard.check("gpt-a", **CALL)), allowed(guard.check("gpt-a", **CALL))
    third = allowed(guard.check("gpt-a", **CALL))
    assert denied(guard.check("gpt-a", **CALL)).body["reason"] == "used"
    first.reservation.settle(4_000_000)
    first.reservation.settle(9_999_999_999)
    assert not guard.check("gpt-a", **CALL)
    second.reservation.release()
    assert guard.check("gpt-a", **CALL)
    with pytest.raises(RuntimeError), third.reservation:
        raise RuntimeError
    assert third.reservation.state == "released"
    with allowed(guard.check("gpt-a", **{**CALL, "prompt_tokens": 1})).reservation as last:
        pass
    assert last.state == "settled"


def test_lease_runs_out() -> None:
    time_ = Time()
    guard = guard_at(time_, rows.policy(ORG.model_copy(update={"daily_limit_micro": 10_000})))
    lost = allowed(guard.check("gpt-a", **CALL)).reservation
    time_.pass_(599)
    guard._known.accounts.expire()
    assert not guard.check("gpt-a", **CALL)
    time_.pass_(2)
    guard._known.accounts.expire()
    assert lost.state == "expired"
    held = allowed(guard.check("gpt-a", **CALL)).reservation
    held.release()
    lost.settle(10_000_000)  # it was only slow: what it cost counts after all
    assert not guard.check("gpt-a", **CALL)


def test_settled_amounts_are_kept_until_as_of_has_passed_them() -> None:
    time_ = Time()
    guard = guard_at(time_, rows.policy(ORG.model_copy(update={"daily_limit_micro": 10_000})))
    allowed(guard.check("gpt-a", **CALL)).reservation.settle()
    settled_ms = NOON * 1_000
    for stamp, at_ms, known in ((1, settled_ms, False), (2, settled_ms + 2_000, False), (3, settled_ms + 2_001, True)):
        feed(guard, rows.as_of(at_ms, stamp=stamp))
        assert bool(guard.check("gpt-a", **CALL)) is known, at_ms


def test_another_partition_says_nothing_about_us() -> None:
    guard = guard_at(None, rows.policy(ORG.model_copy(update={"daily_limit_micro": 10_000})))
    allowed(guard.check("gpt-a", **CALL)).reservation.settle()
    others = [name for name in "abcdefgh" if rows.as_of(0, org=name)[1] != rows.as_of(0)[1]]
    feed(guard, rows.as_of(NOON * 1_000 + 60_000, org=others[0]))
    assert guard._known.accounts.uncounted == 1


@pytest.mark.parametrize(("fail", "passes"), [("open", True), ("closed", False)])
def test_stale_budgets(fail: str, passes: bool) -> None:
    time_ = Time()
    guard = guard_at(
        time_,
        rows.policy(ORG),
        rows.spend(USD),
        rows.as_of(NOON * 1_000),
        settings=Settings(guard_fail=fail),  # type: ignore[arg-type]
    )
    time_.pass_(30)
    assert denied(guard.check("gpt-a", **CALL)).error == "CostLimitExceeded"
    assert guard.staleness_s == 30
    time_.pass_(1)
    decision = guard.check("gpt-a", **CALL)
    assert bool(decision) is passes
    if isinstance(decision, Allow):
        assert decision.stale
    else:
        assert (decision.http_status, decision.error, decision.body["staleness_s"]) == (503, "budget_unknown", 31)
    assert guard.check("gpt-a", prompt_tokens=1, org="nobody limits them")
    feed(guard, rows.as_of((NOON + 31) * 1_000, stamp=2))
    assert denied(guard.check("gpt-a", **CALL)).error == "CostLimitExceeded"


def test_a_log_made_anew_takes_over_from_its_old_stamps() -> None:
    guard = guard_at(None, rows.policy(ORG), rows.spend(USD, stamp=900), rows.as_of(NOON * 1_000, stamp=900))
    feed(guard, rows.spend(0, stamp=5), rows.as_of(NOON * 1_000 - 1, stamp=5))  # a dead owner's last words
    assert not guard.check("gpt-a", **CALL)
    feed(guard, rows.as_of(NOON * 1_000 + 1, stamp=5), rows.spend(0, stamp=6))
    assert guard.check("gpt-a", **CALL)


def test_what_is_gone_comes_back_with_whatever_row_is_next() -> None:
    """A worker that folds its log anew passes a time at which nobody had used the limit yet."""
    guard = guard_at(None, rows.policy(ORG), rows.spend(USD, stamp=900), rows.as_of(NOON * 1_000, stamp=900))
    stream, key, _ = rows.spend(0)
    feed(guard, (stream, key, None))
    assert guard.check("gpt-a", **CALL)
    feed(guard, rows.spend(USD, stamp=29))
    assert not guard.check("gpt-a", **CALL)


# ---------------------------------------------------------------- time


def test_a_new_period_begins_with_nothing_used() -> None:
    time_ = Time()
    guard = guard_at(time_, rows.policy(ORG), rows.spend(USD))
    time_.pass_(12 * 3_600 - 1)
    assert not guard.check("gpt-a", **CALL)
    time_.pass_(1)
    assert guard.check("gpt-a", **CALL)


def test_a_rolling_period_holds_on_while_its_next_row_is_awaited() -> None:
    time_ = Time()
    limit = Limit(period="rolling", hours=1, amount=1_000_000)
    guard = guard_at(time_, rows.policy(Policy(org_id="acme", limits=(limit,))), rows.spend(USD, window="rolling1h"))
    time_.pass_(900)
    assert not guard.check("gpt-a", **CALL)
    time_.pass_(900)
    assert guard.check("gpt-a", **CALL)


@pytest.mark.parametrize("hours", [-30, 30, -24 * 400])
def test_a_jumping_wall_clock_changes_nothing(hours: int) -> None:
    """Back: yesterday's budgets must not come again. Ahead: today's must not be forgotten."""
    time_ = Time()
    limits = [RateLimit(scope="client_ip", name="10.0.0.9", requests=1, window_s=60)]
    guard = guard_at(
        time_,
        rows.policy(ORG),
        rows.spend(USD),
        rows.as_of(NOON * 1_000),
        *map(rows.access, limits),
        settings=Settings(guard_fail="closed"),
    )
    assert denied(guard.check("gpt-a", **CALL)).error == "CostLimitExceeded"
    assert guard.check("gpt-a", prompt_tokens=1, org="free", client_ip="10.0.0.9")
    time_.wall += hours * 3_600 * 10**9
    assert denied(guard.check("gpt-a", **CALL)).error == "CostLimitExceeded"
    assert denied(guard.check("gpt-a", prompt_tokens=1, org="free", client_ip="10.0.0.9")).error == "rate_limited"
    assert guard.staleness_s == 0
    time_.pass_(10)
    assert guard.staleness_s == 10


@pytest.mark.parametrize("off_s", [-86_400, 86_400, 30, -30])
def test_a_clock_that_was_wrong_at_the_start_is_set_right_by_live_records(off_s: int) -> None:
    time_ = Time(NOON + off_s)
    clock = time_.guard()._known.clock
    for second in range(40):
        clock.witness((NOON + second) * 1_000 - 150)  # written a moment before it came
        time_.pass_(1)
    assert abs(clock.wall_ms() - (NOON + 40) * 1_000) <= 200


def test_a_clock_is_not_moved_by_records_that_came_late() -> None:
    time_ = Time(NOON)
    clock = time_.guard()._known.clock
    for second in range(100):
        clock.witness((NOON + second) * 1_000 - (0 if second % 20 == 0 else 9_000))
        time_.pass_(1)
    assert clock.wall_ms() == (NOON + 100) * 1_000


# ---------------------------------------------------------------- blocks and rates


@pytest.mark.parametrize(
    ("scope", "name", "given"),
    [
        ("api_key", "k1", {"api_key_id": "k1"}),
        ("client_ip", "10.1.2.3", {"client_ip": "10.1.2.3"}),
        ("user", "eve", {"user": "eve"}),
    ],
)
def test_blocks(scope: Any, name: str, given: dict[str, str]) -> None:
    time_ = Time()
    until = datetime.fromtimestamp(NOON + 3_600, UTC)
    block = Block(org_id="acme", scope=scope, name=name, reason="leaked", until=until)
    guard = guard_at(time_, rows.access(block))
    decision = denied(guard.check("gpt-a", org="acme", billing_scope="USER", **given))
    assert decision.http_status == 403
    assert decision.body == {
        "ok": False,
        "error": "blocked",
        "scope": scope,
        "name": name,
        "reason": "leaked",
        "until": "2026-11-22T13:00:00Z",
    }
    assert guard.check("gpt-a", org="other", **given)
    assert guard.check("gpt-a", org="acme", **dict.fromkeys(given, "somebody"))
    time_.pass_(3_600)
    assert guard.check("gpt-a", org="acme", **given)


def test_unblocking_and_blocks_of_all_organisations() -> None:
    block = Block(scope="user", name="eve", reason="left")
    guard = guard_at(None, rows.access(block))
    assert denied(guard.check("gpt-a", org="any", user="eve")).body["until"] is None
    assert guard.apply("policies", block.key, None)
    assert guard.apply("policies", block.key, None)
    assert guard.check("gpt-a", org="any", user="eve")


def test_one_request_a_minute_per_address() -> None:
    time_ = Time()
    guard = guard_at(time_, rows.access(RateLimit(scope="client_ip", requests=1, window_s=60)))
    assert guard.check("gpt-a", client_ip="10.0.0.1")
    assert guard.check("gpt-a", client_ip="10.0.0.2")
    time_.pass_(20.5)
    decision = denied(guard.check("gpt-a", client_ip="10.0.0.1"))
    assert (decision.http_status, decision.headers) == (429, {"Retry-After": "40"})
    assert decision.body == {
        "ok": False,
        "error": "rate_limited",
        "scope": "client_ip",
        "name": "10.0.0.1",
        "requests": 1,
        "window_s": 60,
        "burst": 1,
        "counted_by": "process",
        "retry_after_s": 40,
    }
    time_.pass_(40)
    assert guard.check("gpt-a", client_ip="10.0.0.1")
    assert guard.check("gpt-a")


def test_own_limit_stands_before_that_of_all_and_changes_at_once() -> None:
    time_ = Time()
    until = datetime.fromtimestamp(NOON + 100, UTC)
    own = RateLimit(scope="api_key", name="k", requests=3, window_s=60, burst=3, until=until)
    guard = guard_at(time_, rows.access(RateLimit(scope="api_key", requests=1, window_s=60)), rows.access(own))
    assert [bool(guard.check("gpt-a", api_key_id="k")) for _ in range(4)] == [True, True, True, False]
    feed(guard, rows.access(own.model_copy(update={"burst": 5})))
    assert [bool(guard.check("gpt-a", api_key_id="k")) for _ in range(3)] == [True, True, False]
    time_.pass_(200)  # the own limit has run out
    assert [bool(guard.check("gpt-a", api_key_id="k")) for _ in range(2)] == [True, False]


def test_a_call_refused_by_one_bucket_takes_nothing_out_of_the_other() -> None:
    time_ = Time()
    guard = guard_at(
        time_,
        rows.access(RateLimit(scope="api_key", requests=1, window_s=60)),
        rows.access(RateLimit(scope="client_ip", requests=1, window_s=60)),
    )
    assert guard.check("gpt-a", api_key_id="k", client_ip="1")
    assert not guard.check("gpt-a", api_key_id="fresh", client_ip="1")
    assert guard.check("gpt-a", api_key_id="fresh", client_ip="2")


# ---------------------------------------------------------------- refusals are events


def test_refusals_are_blocked_events_without_cost() -> None:
    producer = UsageProducer(mode="memory", service="shop")
    block = Block(scope="user", name="eve", reason="left")
    guard = guard_at(None, rows.policy(ORG), rows.spend(USD), rows.access(block), producer=producer)
    decisions = [
        guard.check("gpt-a", prompt_tokens=10**6, org="acme", user="ann", feature="search", request_id="r1"),
        guard.check("gpt-a", **CALL, groups=["red"], tags={"a": "b"}),
        guard.check("gpt-a", org="acme", user="eve"),
    ]
    assert [denied(decision).event_id for decision in decisions] == [event.event_id for event in producer.events]
    assert [(e.status, e.http_status, e.error_type, e.usage_source) for e in producer.events] == [
        ("BLOCKED", 402, "cost_cap", "NONE"),
        ("BLOCKED", 402, "CostLimitExceeded", "NONE"),
        ("BLOCKED", 403, "blocked", "NONE"),
    ]
    first, second, _ = producer.events
    assert (first.feature, first.request_id, first.input_tokens, first.output_tokens) == ("search", "r1", 0, 0)
    assert (first.model_sent, first.org_id, first.user_id, second.group_id) == ("gpt-a", "acme", "ann", "red")
    assert second.tags == {"a": "b"}


def test_one_alert_per_kind_scope_and_hour() -> None:
    time_ = Time()
    guard = guard_at(time_, rows.access(RateLimit(scope="client_ip", requests=1, window_s=7_200)))

    def alerts() -> list[tuple[str, str, str]]:
        found = []
        while (alert := guard._alerts.first()) is not None:
            guard._alerts.sent(alert)
            assert alert.source == "tollmeter/guard"
            found.append((alert.kind, alert.scope, alert.name))
        return found

    for _ in range(3):
        guard.check("gpt-a", prompt_tokens=10**6, org="acme", user="ann")
        guard.check("gpt-a", prompt_tokens=10**6, org="acme", api_key_id="k")
        guard.check("gpt-a", org="acme", client_ip="1")
    assert alerts() == [
        ("cap_refused", "user", "ann"),
        ("cap_refused", "api_key", "k"),
        ("rate_limited", "client_ip", "1"),
    ]
    other = guard_at(Time(NOON + 60), rows.access(RateLimit(scope="client_ip", requests=1, window_s=7_200)))
    guard.check("gpt-a", prompt_tokens=10**6, org="acme", user="bob")
    other.check("gpt-a", prompt_tokens=10**6, org="acme", user="bob")
    mine, theirs = guard._alerts.first(), other._alerts.first()
    assert mine is not None
    assert theirs is not None
    assert mine.id == theirs.id
    alerts()
    time_.pass_(3_600)
    guard.check("gpt-a", prompt_tokens=10**6, org="acme", user="ann")
    assert alerts() == [("cap_refused", "user", "ann")]


def test_a_model_that_is_not_allowed_is_told_with_its_rule_and_who_called() -> None:
    """One alert per rule and hour, whoever calls; another rule is another alert."""
    every = ModelRule(org_id="acme", scope="org", allowed=("gpt-b",))
    own = ModelRule(org_id="acme", scope="api_key", name="k", allowed=("gpt-b",))
    guard = guard_at(
        None, *(("usage.policies", one.key.encode(), one.model_dump_json().encode()) for one in (every, own))
    )
    for user in ("ann", "bob"):
        assert denied(guard.check("gpt-a", org="acme", user=user)).error == "model_not_allowed"
    assert denied(guard.check("gpt-a", org="acme", api_key_id="k")).error == "model_not_allowed"
    first = guard._alerts.first()
    assert first is not None
    guard._alerts.sent(first)
    second = guard._alerts.first()
    assert second is not None
    guard._alerts.sent(second)
    assert guard._alerts.first() is None
    assert (first.kind, first.scope, first.name, second.scope, second.name) == (
        "model_not_allowed",
        "org",
        "",
        "api_key",
        "k",
    )
    assert "model 'gpt-a' is not allowed for organisation acme; allowed: gpt-b" in first.text
    assert first.facts["caller_user"] == "ann"
    assert (first.facts["model"], first.facts["rule"], first.facts["allowed"]) == ("gpt-a", every.key, ["gpt-b"])
    assert second.facts["caller_api_key"] == "k"


# ---------------------------------------------------------------- modes and faults


def test_disabled_guard_lets_all_pass() -> None:
    decision = allowed(Guard(mode="disabled", settings=Settings()).check("anything", prompt_tokens=10**12))
    decision.reservation.settle(5)
    assert decision.est_usd is None


def test_a_tokenizer_that_fails_is_done_without(caplog: pytest.LogCaptureFixture) -> None:
    def broken(_prompt: str, _model: str) -> int:
        raise RuntimeError("no vocabulary")

    by_characters = allowed(guard_at().check("gpt-a", prompt="x" * 400)).est_nano
    assert allowed(guard_at(tokenizer=broken).check("gpt-a", prompt="x" * 400)).est_nano == by_characters
    assert "the tokenizer failed: RuntimeError" in caplog.text


@pytest.mark.parametrize(
    ("source", "key", "value"),
    [
        ("spend", "spend/acme/org//day@UTC/USD", b"{"),
        ("spend", "spend/x", b'{"spent":"a lot"}'),
        ("spend", "as_of/1", b"[]"),
        ("policies", "policy:x", b'{"org_id":"acme","daily_limit_micro":-1}'),
        ("policies", "member:x", b"\xff"),
        ("policies", "block:x", b"{}"),
        ("policies", "rate:x", b"null"),
        ("policies", "layout", b'{"priced":0}'),
        ("policies", b"\xff", b"{}"),
        ("prices", "x", b"{}"),
        ("prices", "x", b'{"price_book":"x","rules":[{}]}'),
        ("prices", "x", b"\x00"),
        ("prices", "x", b"[]"),
    ],
)
def test_unreadable_records_change_nothing(source: Any, key: Any, value: bytes) -> None:
    guard = guard_at(None, rows.policy(ORG))
    assert not guard.apply(source, key, value)
    assert guard._known.unreadable == 1
    assert allowed(guard.check("gpt-a", **CALL)).est_nano == 10_000_000


def test_foreign_keys_are_left_alone() -> None:
    guard = guard_at()
    assert guard.apply("policies", "mute:x", b"whatever")
    assert guard.apply("spend", "something/else", b"whatever")
    assert guard.apply("prices", "old-book", None)
    assert guard._known.unreadable == 0


@pytest.mark.parametrize(
    ("limit", "guards", "call", "bound"), [(USD, 1, 10**7, 0), (USD, 10, 10**7, 9 * 10**7), (100, 3, 50, 100)]
)
def test_overshoot_bound(limit: int, guards: int, call: int, bound: int) -> None:
    assert overshoot_bound(limit, guards, call) == bound
    assert overshoot_bound(limit, guards, call, underestimate=2.0) > bound


def test_many_threads_never_reserve_more_than_the_limit() -> None:
    guard = guard_at(None, rows.policy(ORG))
    granted: list[Allow] = []

    def work() -> None:
        for _ in range(60):
            decision = guard.check("gpt-a", **CALL)
            if isinstance(decision, Allow):
                granted.append(decision)
            time.sleep(0)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(granted) == 100  # 1 USD of 0.01 USD each
