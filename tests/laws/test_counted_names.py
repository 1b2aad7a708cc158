"""What PRICE counts against a limit is what the guard asks for: a spent limit refuses every call that counts to it."""

from functools import cache
from itertools import product

import pytest

from tests.guard_rows import NOON, USD, Time, as_of, feed, layout, policy, real_book, spend
from tests.guards import shipped_book
from tollmeter.producers.guard.decision import Deny
from tollmeter.producers.guard.guard import Guard
from tollmeter.schemas.policy import Policy
from tollmeter.streams.rules.pricing.model_names import Names

CALLS = [
    ("openai", "api.openai.com", "gpt-4o", "gpt-4o-2024-08-06"),
    ("openai", "api.openai.com", "GPT-4o", "gpt-4o-2024-08-06"),
    ("openai", "api.openai.com", " gpt-4o", "gpt-4o-2024-08-06"),
    ("openai", "", "openai/gpt-4o", "gpt-4o-2024-08-06"),
    ("OpenAI", "", "gpt-4o", "gpt-4o-2024-08-06"),
    ("openai", "api.openai.com", "gpt-4o-2024-08-06", "gpt-4o-2024-08-06"),
    ("openai", "api.openai.com", "GPT-4o-2024-08-06", "gpt-4o-2024-08-06"),
    ("openai", "api.openai.com", "gpt-4", "gpt-4-0613"),
    ("openai", "api.groq.com", "llama-3.1-8b-instant", "llama-3.1-8b-instant"),
    ("", "x.openai.azure.com", "gpt-4o", "gpt-4o-2024-08-06"),
    ("", "x.openai.azure.com", "prod-chat", "gpt-4o-2024-08-06"),
    ("anthropic", "api.anthropic.com", "claude-sonnet-4-5", "claude-sonnet-4-5-20250929"),
    ("aws", "bedrock-runtime.us-east-1.amazonaws.com", "us.anthropic.claude-sonnet-4-5-20250929-v1:0", ""),
    ("", "bedrock-runtime.eu-west-1.amazonaws.com", "eu.anthropic.claude-sonnet-4-5-20250929-v1:0", ""),
    ("google", "", "claude-sonnet-4-5@20250929", "claude-sonnet-4-5-20250929"),
    ("", "eu-aiplatform.googleapis.com", "models/gemini-2.5-pro", "gemini-2.5-pro"),
    ("google", "", "gemini-2.5-pro", "gemini-2.5-pro"),
    ("openrouter", "openrouter.ai", "openai/gpt-4o", "openai/gpt-4o-2024-08-06"),
    ("nobody", "my.host", "our-model", "our-model-2026-01-02"),
]
"""Provider stated, host, name sent, name answered ("": the answer names none)."""


def counted(provider: str, host: str, sent: str, answered: str) -> dict[str, str]:
    """Return the scopes that PRICE counts a call to."""
    names = Names(provider, answered, sent, "", host, "", "chat", "", "REALTIME")
    provider_id, model_id = shipped_book().planner.identity(names)
    return {"provider": provider_id, "model": model_id, "version": answered or sent}


@cache
def priced() -> tuple[Time, Guard]:
    clock = Time()
    guard = clock.guard(max_usd=1_000.0)
    feed(guard, layout(), real_book())
    return clock, guard


def spent(guard: Guard, scope: str, name: str) -> Policy:
    """Put a limit in force that is used up."""
    made = Policy.model_validate({"org_id": "acme", "scope": scope, "name": name, "daily_limit_micro": 1_000_000})
    feed(guard, policy(made), spend(USD, scope=made.scope, name=made.name), as_of(NOON * 1_000))
    return made


def asked(guard: Guard, provider: str, host: str, sent: str) -> bool:
    decided = guard.check(sent, org="acme", user="ann", provider=provider, api_host=host, max_output_tokens=1)
    if isinstance(decided, Deny):
        assert decided.error == "CostLimitExceeded"
        return False
    decided.reservation.release()
    return True


@pytest.mark.parametrize("call", CALLS, ids="-".join)
def test_a_spent_limit_refuses_what_counts_to_it(call: tuple[str, str, str, str]) -> None:
    provider, host, sent, answered = call
    guard = priced()[1]
    if answered:
        guard.answered(sent, answered, provider, host)
    for scope, name in counted(*call).items():
        made = spent(guard, scope, name)
        try:
            assert not asked(guard, provider, host, sent), (scope, name)
        finally:
            assert guard.apply("policies", f"policy:{made.policy_id}", None)
    assert asked(guard, provider, host, sent)


@pytest.mark.parametrize(("one", "other"), list(product(CALLS, CALLS)), ids=str)
def test_what_does_not_count_to_a_limit_passes(
    one: tuple[str, str, str, str], other: tuple[str, str, str, str]
) -> None:
    """Once the answers are known: what one call counts to refuses another exactly if that counts to it, too."""
    guard = priced()[1]
    for provider, host, sent, answered in (one, other):
        guard.answered(sent, answered, provider, host)
    theirs = counted(*other)
    for scope, name in counted(*one).items():
        made = spent(guard, scope, name)
        same = theirs[made.scope] == made.name
        try:
            assert asked(guard, *other[:3]) is not same, (made.scope, made.name, theirs)
        finally:
            assert guard.apply("policies", f"policy:{made.policy_id}", None)


def test_an_alias_may_be_any_version_until_it_has_answered() -> None:
    guard = Time().guard(max_usd=1_000.0)
    feed(guard, layout(), real_book())
    spent(guard, "model", "gpt-4o-2024-08-06")
    assert not asked(guard, "openai", "", "gpt-4o-2024-08-06")
    assert asked(guard, "openai", "", "gpt-4o-2024-11-20")
    assert asked(guard, "openai", "", "gpt-4o-mini")
    assert not asked(guard, "openai", "", "gpt-4o"), "it may be that version"
    guard.answered("gpt-4o", "gpt-4o-2024-11-20", "openai")
    assert asked(guard, "openai", "", "GPT-4o")
    guard.answered("gpt-4o", "gpt-4o-2024-08-06", "openai")
    assert not asked(guard, "openai", "", "gpt-4o"), "the alias has moved"
    for nonsense in ("", "  ", "\ud800", "x" * 5_000):
        guard.answered(nonsense, nonsense, nonsense, nonsense)
