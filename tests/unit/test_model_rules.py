"""Rules about models, by hand: who is held by which, what a name meets, what is refused and what is downgraded."""

from functools import cache
from typing import Any

import pytest
from pydantic import ValidationError

from tests.guards import guard_with
from tollmeter.producers.client.client import UsageProducer
from tollmeter.producers.guard.decision import Allow, Deny
from tollmeter.producers.guard.guard import Guard
from tollmeter.schemas.model_rules import ModelRule
from tollmeter.schemas.policy import Member
from tollmeter.streams.rules.limits.models import holding

MINI = "gpt-4o-mini"


def rule(scope: str = "user", name: str = "ann", *allowed: str, to: str = "") -> ModelRule:
    fields = {"org_id": "acme", "scope": scope, "name": name, "allowed": allowed or (MINI,), "downgrade_to": to}
    return ModelRule.model_validate(fields)


@cache
def priced() -> Guard:
    """One guard for all tables: the book is read once."""
    return guard_with()


def ask(*rules: ModelRule, model: Any = "gpt-4o", provider: str = "openai", **about: Any) -> Allow | Deny:
    """Ask a guard that knows these rules alone."""
    guard = priced()
    for one in rules:
        assert guard.apply("policies", one.key, one.model_dump_json().encode())
    try:
        return guard.check(model, **{"org": "acme", "user": "ann", "provider": provider, **about})
    finally:
        for one in rules:
            assert guard.apply("policies", one.key, None)


@pytest.mark.parametrize(
    ("allowed", "provider", "sent", "passes"),
    [
        ("gpt-4o", "openai", "gpt-4o", True),
        ("gpt-4o", "openai", "GPT-4o", True),
        ("gpt-4o", "OpenAI", " gpt-4o ", True),
        ("gpt-4o", "openrouter", "openai/gpt-4o", True),
        ("gpt-4o", "openai", "gpt-4o-2024-08-06", True),
        ("gpt-4o", "azure", "gpt-4o", True),
        ("gpt-4o", "openai", "gpt-4o-mini", False),
        ("gpt-4o", "openai", "gpt-4o-audio-preview", False),
        ("gpt-4o", "openai", "ft:gpt-4o-2024-08-06:acme::x", False),
        ("gpt-4o", "azure", "prod-chat", False),
        ("prod-chat", "azure", "Prod-Chat", True),
        ("GPT-4o", "openai", "gpt-4o", True),
        ("openai/gpt-4o", "azure", "gpt-4o", True),
        ("gpt-4o-2024-08-06", "openai", "gpt-4o-2024-08-06", True),
        ("gpt-4o-2024-08-06", "openai", "gpt-4o-20240806", True),
        ("gpt-4o-2024-08-06", "openai", "gpt-4o-2024-11-20", False),
        ("gpt-4o-2024-08-06", "openai", "gpt-4o", False),
        ("gpt-4", "openai", "gpt-4-0613", True),
        ("claude-sonnet-4-5", "anthropic", "claude-sonnet-4-5-20250929", True),
        ("claude-sonnet-4-5", "aws", "us.anthropic.claude-sonnet-4-5-20250929-v1:0", True),
        ("claude-sonnet-4-5", "aws", "anthropic.claude-sonnet-4-5-20250929-v1:0", True),
        ("claude-sonnet-4-5", "aws", "global.anthropic.claude-sonnet-4-5-20250929-v1:0", True),
        (
            "claude-sonnet-4-5",
            "aws",
            "arn:aws:bedrock:us-east-1:123456789012:inference-profile/us.anthropic.claude-sonnet-4-5-20250929-v1:0",
            True,
        ),
        ("claude-sonnet-4-5", "aws", "us.anthropic.claude-opus-4-1-20250805-v1:0", False),
        ("us.anthropic.claude-sonnet-4-5-20250929-v1:0", "aws", "eu.anthropic.claude-sonnet-4-5-20250929-v1:0", True),
        ("us.anthropic.claude-sonnet-4-5-20250929-v1:0", "google", "claude-sonnet-4-5@20250929", True),
        ("claude-sonnet-4-5", "google", "claude-sonnet-4-5@20250929", True),
        ("nova-pro", "aws", "us.amazon.nova-pro-v1:0", True),
        ("gemini-2.5-pro", "google", "models/gemini-2.5-pro", True),
        ("gemini-2.5-pro", "google", "publishers/google/models/gemini-2.5-pro", True),
        ("models/gemini-2.5-pro", "google", "gemini-2.5-pro", True),
        ("gemini-2.5-pro", "google", "gemini-2.5-flash", False),
        ("*", "nobody", "anything at all", True),
    ],
)
def test_a_name_meets_a_rule_however_it_is_written(allowed: str, provider: str, sent: str, passes: bool) -> None:
    assert bool(ask(rule("user", "ann", allowed), model=sent, provider=provider, max_output_tokens=1)) is passes


@pytest.mark.parametrize("model", ["", "  ", None, "x" * 300, MINI + " " * 300 + "gpt-4o", 5, b"gpt", ["gpt-4o-mini"]])
def test_a_model_that_cannot_be_read_is_refused(model: Any) -> None:
    denied = ask(rule(), model=model)
    assert isinstance(denied, Deny)
    assert (denied.http_status, denied.error) == (403, "model_not_allowed")


def test_the_refusal_names_rule_and_allowed_models_and_is_an_event_of_cost_0() -> None:
    producer = UsageProducer(service="t", mode="memory")
    made = guard_with(rule("user", "ann", MINI, "gpt-4.1"), producer=producer)
    denied = made.check("gpt-4o", org="acme", user="ann", provider="openai", feature="chat")
    assert isinstance(denied, Deny)
    assert denied.http_status == 403
    assert denied.body == {
        "ok": False,
        "error": "model_not_allowed",
        "message": "model 'gpt-4o' is not allowed for user ann; allowed: gpt-4o-mini, gpt-4.1",
        "model": "gpt-4o",
        "scope": "user",
        "name": "ann",
        "rule": "models:acme/user/ann",
        "allowed": [MINI, "gpt-4.1"],
        "downgrade_to": None,
    }
    (event,) = producer.events
    assert (event.status, event.model_sent, event.input_tokens, event.output_tokens) == ("BLOCKED", "gpt-4o", 0, 0)
    assert (event.error_type, event.usage_source, event.event_id) == ("model_not_allowed", "NONE", denied.event_id)
    assert made._known.accounts.in_flight == 0


def test_nobody_else_is_held() -> None:
    for other in ({"user": "bob"}, {"org": "other"}, {"user": ""}):
        assert ask(rule(), **other)
    assert ask(rule(), model=MINI)


@pytest.mark.parametrize(
    ("rules", "expected", "lost"),
    [
        ([rule("api_key", "k"), rule("user", "ann"), rule("group", "dev"), rule("org", "")], "ku", "go"),
        ([rule("api_key", "k"), rule("group", "dev"), rule("group", "ops"), rule("org", "")], "kggo", ""),
        ([rule("api_key", "other"), rule("user", "bob"), rule("group", "else")], "", ""),
        ([rule("org", "")], "o", ""),
    ],
)
def test_the_users_own_rule_wins_whole_and_the_keys_always_holds(
    rules: list[ModelRule], expected: str, lost: str
) -> None:
    for order in (rules, rules[::-1]):
        found = holding(order, "ann", ("dev", "ops"), "k")
        short = {"api_key": "k", "user": "u", "group": "g", "org": "o"}
        assert "".join(short[one.scope] for one in found.rules) == expected
        assert "".join(short[one.scope] for one in found.lost) == lost


def test_a_call_on_the_users_own_key_meets_its_keys_rule_alone() -> None:
    assert ask(rule(), billing_scope="USER")
    assert not ask(rule("api_key", "k"), billing_scope="USER", api_key_id="k")


def test_groups_of_the_membership_and_of_the_call_hold() -> None:
    made = guard_with(rule("group", "dev"))
    about = {"org": "acme", "user": "ann", "provider": "openai"}
    assert made.check("gpt-4o", **about)
    assert not made.check("gpt-4o", **about, groups=["dev"])
    member = Member(org_id="acme", name="ann", groups=("inner",))
    outer = Member(org_id="acme", kind="group", name="inner", groups=("dev",))
    for one in (member, outer):
        assert made.apply("policies", f"member:{one.member_id}", one.model_dump_json().encode())
    assert not made.check("gpt-4o", **about)
    assert made.apply("policies", f"member:{member.member_id}", None)
    assert made.check("gpt-4o", **about)


def test_a_rule_ends_with_its_row_and_changes_at_once() -> None:
    made, about = guard_with(rule()), {"org": "acme", "user": "ann", "provider": "openai"}
    assert not made.check("gpt-4o", **about)
    wider = rule("user", "ann", MINI, "gpt-4o")
    assert made.apply("policies", wider.key, wider.model_dump_json().encode())
    assert made.check("gpt-4o", **about)
    assert not made.apply("policies", wider.key, b'{"org_id": "acme"}')
    assert made.check("gpt-4o", **about), "what cannot be read changes nothing"
    assert made.apply("policies", wider.key, None)
    assert made.check("o1", **about)


# ---------------------------------------------------------------- downgrades


def test_who_can_send_another_model_is_told_which() -> None:
    allowed = ask(rule(to=MINI), downgrades=True, max_output_tokens=1_000)
    assert isinstance(allowed, Allow)
    assert allowed.downgrade_to == MINI
    assert allowed.est_nano == 600_000  # 1,000 out at 0.60 USD per million
    same = ask(rule(to=MINI), downgrades=True, model="gpt-4o-mini-2024-07-18")
    assert isinstance(same, Allow)
    assert same.downgrade_to == ""


def test_who_cannot_is_refused_and_told_which() -> None:
    denied = ask(rule(to=MINI))
    assert isinstance(denied, Deny)
    assert (denied.downgrade_to, denied.body["downgrade_to"]) == (MINI, MINI)


@pytest.mark.parametrize(
    ("rules", "instead"),
    [
        ([rule("api_key", "k", to=MINI), rule("user", "ann")], ""),  # the other rule refuses
        ([rule("api_key", "k", MINI, "o3", to="o3"), rule("user", "ann", to=MINI)], MINI),  # o3 is not ann's
        ([rule("api_key", "k", "o3", to="o3"), rule("user", "ann", to=MINI)], ""),  # nothing both allow
        ([rule("api_key", "k", "gpt-4o"), rule("user", "ann", to=MINI)], ""),  # the key's rule forbids the target
        ([rule("api_key", "k", "gpt-4o", MINI), rule("user", "ann", to=MINI)], MINI),
    ],
)
def test_a_target_must_be_allowed_by_every_rule(rules: list[ModelRule], instead: str) -> None:
    decided = ask(*rules, api_key_id="k", downgrades=True)
    assert decided.downgrade_to == instead
    assert bool(decided) is bool(instead)


def test_a_target_that_another_provider_makes_is_no_target() -> None:
    made = rule(to=MINI)
    assert not ask(made, model="claude-opus-4-1", provider="anthropic", downgrades=True)
    assert ask(made, model="gpt-4o", provider="azure", downgrades=True).downgrade_to == MINI


@pytest.mark.parametrize("others", [["o3"], [""], [MINI, "o3"], "o3"])
def test_every_model_that_a_call_names_must_be_allowed(others: Any) -> None:
    denied = ask(rule(to=MINI), model=MINI, models=others, downgrades=True)
    assert isinstance(denied, Deny)
    assert denied.downgrade_to == ""
    assert ask(rule(to=MINI), model=MINI, models=[MINI], downgrades=True)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"downgrade_to": "gpt-4o"}, "not allowed itself"),
        ({"allowed": []}, "at least 1"),
        ({"allowed": ["  "]}, "empty name"),
        ({"name": ""}, "name says which"),
        ({"scope": "org"}, "name says which"),
        ({"scope": "agent"}, "Input should be"),
        ({"other": 1}, "Extra inputs"),
    ],
)
def test_a_wrong_rule_is_said(fields: dict[str, Any], said: str) -> None:
    right = {"org_id": "acme", "scope": "user", "name": "ann", "allowed": [MINI]}
    with pytest.raises(ValidationError, match=said):
        ModelRule.model_validate({**right, **fields})
