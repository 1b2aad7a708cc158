"""Every refusal of the guard is one sentence that says the rule and the next step, in whatever shape it is told."""

import json
from typing import Any

import pytest

from tollmeter.producers.guard.decision import Deny
from tollmeter.producers.guard.refusals import cost_cap
from tollmeter.producers.guard.sentences import sentence
from tollmeter.producers.http.refused import content
from tollmeter.producers.http.request import SPEAKS

SPENT = {
    "message": "llm cost limit exceeded: daily cost limit reached",
    "reason": "used",
    "scope": "user",
    "name": "ann",
    "policy_id": "acme/user/ann/pool/EUR",
    "unit": "EUR",
    "limit": 1_500_000_000,
    "used": 1_500_000_001,
    "in_flight": 0,
}


@pytest.mark.parametrize(
    ("kind", "members", "wait_s", "said"),
    [
        (
            "CostLimitExceeded",
            SPENT,
            7_201,
            (
                "llm cost limit exceeded: daily cost limit reached: user ann has used 1.500000001 EUR of 1.5 EUR; "
                "try again in 3 h, or have policy acme/user/ann/pool/EUR raised"
            ),
        ),
        (
            "CostLimitExceeded",
            {**SPENT, "reason": "share", "scope": "org", "name": "", "unit": "tokens", "limit": 90, "used": 5},
            1,
            (
                "llm cost limit exceeded: daily cost limit reached: the organisation has used 5 tokens of 90 tokens; "
                "other processes may be spending the rest, or try again in 1 s"
            ),
        ),
        (
            "blocked",
            {"scope": "api_key", "name": "9c1f", "reason": "leaked", "until": "2026-12-01T00:00:00Z"},
            None,
            "key 9c1f is blocked until 2026-12-01T00:00:00Z: leaked",
        ),
        (
            "rate_limited",
            {"scope": "client_ip", "name": "192.0.2.1", "requests": 600, "window_s": 60},
            40,
            "address 192.0.2.1 may make 600 calls in 60 s, and has made them: try again in 40 s",
        ),
        (
            "model_not_allowed",
            {"message": "model 'o1' is not allowed for user ann; allowed: gpt-4o-mini", "downgrade_to": "gpt-4o-mini"},
            None,
            "model 'o1' is not allowed for user ann; allowed: gpt-4o-mini; gpt-4o-mini would serve",
        ),
        (
            "budget_unknown",
            {"message": "spend is not known at present", "staleness_s": None},
            1,
            "spend is not known at present, and calls are refused until it is: try again in 1 s",
        ),
        (
            "price_unknown",
            {"message": "no price is known", "model": "x"},
            None,
            "no price is known, and such calls are refused: ask for a model of the price list, or have it added",
        ),
        (
            "blocked",
            {"scope": "user", "name": "eve\nERROR paid\x1b[2J", "reason": "", "until": None},
            None,
            r"user eve\nERROR paid\x1b[2J is blocked until an admin ends that",
        ),
        ("made by hand", {}, None, "made by hand"),
        ("blocked", {"message": "not today"}, None, "not today"),
    ],
)
def test_the_sentence(kind: str, members: dict[str, Any], wait_s: int | None, said: str) -> None:
    assert sentence({"ok": False, "error": kind, **members}, wait_s) == said


def test_small_amounts_are_no_zero() -> None:
    assert "may cost 0.0000001 USD, and one call may cost at most 0.00000005 USD" in sentence(
        cost_cap(402, 50, 100).body
    )


@pytest.mark.parametrize("path", sorted({f"/v1{end}" for end, _ in SPEAKS} | {"/v1/chat/completions", "/v2/rerank"}))
def test_each_interface_carries_the_sentence_and_the_members(path: str) -> None:
    deny = Deny(402, {"ok": False, "error": "CostLimitExceeded", **SPENT}, 60)
    body = json.loads(content(deny, path))
    said = sentence(deny.body, 60)
    error = body["error"]
    places = [error, body["message"], error.get("message") if isinstance(error, dict) else None]
    assert said in places, "where this interface's clients look for it"
    assert body["refused"] == "CostLimitExceeded"
    kept = {name: value for name, value in deny.body.items() if name not in ("error", "message")}
    assert {name: body[name] for name in kept} == kept
