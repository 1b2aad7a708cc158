"""The estimate before a call knows the tier that its body asks for: by hand, from the rates in the comments."""

import json
from datetime import UTC, datetime
from functools import cache
from typing import Any

import pytest

from tests.price_events import shipped_book
from tollmeter.producers.guard.prices import Prices, load_prices
from tollmeter.producers.http.request import read_request
from tollmeter.producers.http.weight import tier_asked
from tollmeter.streams.price.book.publish import document

NOON = int(datetime(2026, 11, 20, 12, tzinfo=UTC).timestamp())


@cache
def prices() -> Prices:
    return load_prices(document(shipped_book())[1], lambda: NOON)


@pytest.mark.parametrize(
    ("provider", "model", "tier", "nano"),
    [
        ("openai", "gpt-4o", "", 2_500_000),
        ("openai", "gpt-4o", "auto", 2_500_000),
        ("openai", "gpt-4o", "default", 2_500_000),
        ("openai", "gpt-4o", "flex", 2_500_000),  # a discount is not counted on
        ("openai", "gpt-4o", "priority", 4_250_000),  # listed: 1.7 times
        ("openai", "gpt-4o", "Priority", 4_250_000),
        ("openai", "gpt-5", "priority", 2_500_000),  # listed: 2.50 for 1.25
        ("openai", "gpt-4o", "made-up", 5_000_000),  # nobody lists more than twice the standard
        ("anthropic", "claude-opus-4-6", "fast", 30_000_000),  # six times 5
        ("ollama", "llama3", "priority", 0),
    ],
)
def test_a_dearer_tier_is_estimated_as_such(provider: str, model: str, tier: str, nano: int) -> None:
    assert prices().estimate(provider, model, 1_000, 0, tier)[0] == nano


@pytest.mark.parametrize(
    ("body", "tier"),
    [
        ({"service_tier": "priority"}, "priority"),
        ({"serviceTier": {"type": "priority"}}, "priority"),
        ({"serviceTier": "flex"}, "flex"),
        ({"speed": "fast"}, "fast"),
        ({"speed": "standard"}, ""),
        ({"service_tier": 3}, ""),
        ({"service_tier": {"type": ["x"]}}, ""),
        ({}, ""),
    ],
)
def test_where_a_body_says_its_tier(body: dict[str, Any], tier: str) -> None:
    assert tier_asked(body) == tier
    content = json.dumps({"model": "gpt-4o", "messages": [], **body}).encode()
    asked = read_request("/v1/chat/completions", "application/json", content)
    assert asked is not None
    assert asked.service_tier == tier


@pytest.mark.parametrize(
    ("model", "nano"),
    [
        ("us.anthropic.claude-opus-4-1-20250805-v1:0", 1_500_000_000),
        ("global.anthropic.claude-haiku-4-5-20251001-v1:0", 100_000_000),
        ("us.anthropic.claude-haiku-4-5-20251001-v1:0", 110_000_000),
        ("us-gov.anthropic.claude-sonnet-4-5-20250929-v1:0", 360_000_000),
        ("us-gov.openai.gpt-oss-120b-1:0", 18_000_000),
        ("openai.gpt-oss-120b-1:0", 15_000_000),
        ("amazon.nova-pro-v1:0", 80_000_000),
    ],
)
def test_a_surcharge_by_a_name_is_for_that_name_alone(model: str, nano: int) -> None:
    assert prices().quote("aws", model, {"input_tokens": 100_000}).nano == nano
