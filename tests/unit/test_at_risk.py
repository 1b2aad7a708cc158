"""What is not known of a call is at risk beside its cost: amounts worked out by hand from the rates in the comments."""

from datetime import UTC, datetime
from typing import Any

import pytest

from tests.price_events import price_one_of, shipped_book
from tollmeter.producers.guard.prices import load_prices
from tollmeter.streams.price.book.bands import apply_rules
from tollmeter.streams.price.book.overrides import Factor
from tollmeter.streams.price.book.publish import document
from tollmeter.streams.rules.pricing.rates import Band

M = 1_000_000
USD = 10**9
AUTUMN = datetime(2026, 9, 1, tzinfo=UTC)

PARTIAL: list[tuple[dict[str, Any], float | None, float | None, str]] = [
    # 2.50 and 10 a million; nobody lists a tier above twice the standard but the fast ones, of which the dearest is six
    ({"model_sent": "gpt-4o", "service_tier": "hyper", "input_tokens": M}, 2.5, 2.5, "a tier that nobody lists"),
    (
        {"provider": "anthropic", "model_sent": "claude-sonnet-4-5", "service_tier": "fast", "input_tokens": 100_000},
        0.3,
        1.5,
        "fast where it is not listed",
    ),
    (
        {"provider": "together", "model_sent": "zai-org/GLM-5", "processing": "BATCH", "input_tokens": M},
        None,
        None,
        "a discount is no risk",
    ),
    # a fair guess of twice the standard is the upper end, 1.8 times is not: 75 to 100 % more
    ({"model_sent": "gpt-4o", "service_tier": "priority", "event_time": AUTUMN, "input_tokens": M}, 5, None, "guessed"),
    (
        {
            "provider": "google",
            "model_sent": "gemini-2.5-pro",
            "service_tier": "priority",
            "event_time": AUTUMN,
            "output_tokens": M,
        },
        18,
        2.16,
        "a guess with an upper end, in whole percent: 112",
    ),
    # neither host nor region said: 3 a million, 10 % more at a regional endpoint
    ({"provider": "google", "model_sent": "claude-sonnet-4-5", "input_tokens": 100_000}, 0.3, 0.03, "place unknown"),
    # the dearest gpt-4o of text is the first one, 5 and 15
    (
        {"model_sent": "gpt-4o-2099-01-01", "input_tokens": M, "output_tokens": M},
        12.5,
        12.5,
        "a version without a price",
    ),
    (
        {"model_sent": "gpt-4o", "event_time": datetime(2024, 6, 1, tzinfo=UTC), "input_tokens": M},
        2.5,
        3.5,
        "too early",
    ),
    # a count that may be output, 10 a million; sound at 40 above the 2.50 of text; what a search found
    ({"model_sent": "gpt-4o", "input_tokens": 1_000, "extra_units": {"unexplained_tokens": 1_000}}, 0.0025, 0.01, "?"),
    (
        {"model_sent": "gpt-4o", "input_tokens": 1_000, "extra_units": {"input_audio_tokens": 1_000}},
        0.0025,
        0.035,
        "audio",
    ),
    ({"model_sent": "gpt-4o-mini", "extra_units": {"search_blocks": 1, "web_searches": 1}}, 0.01, 0.05, "a fee"),
    # written to a cache without a price for it, billed as fresh input at 0.50: at most twice that
    (
        {"provider": "mistral", "model_sent": "mistral-large-2512", "input_tokens": M, "cache_write_tokens": M},
        0.5,
        0.5,
        "cache",
    ),
    # one source alone: its rate is the dearest known
    ({"provider": "together", "model_sent": "Qwen/Qwen3-Coder-Next-FP8", "input_tokens": M}, 0.5, None, "one source"),
]


@pytest.mark.parametrize(("fields", "cost", "risk"), [pytest.param(*row[:3], id=row[3]) for row in PARTIAL])
def test_of_a_partial_price(fields: dict[str, Any], cost: float | None, risk: float | None) -> None:
    row = price_one_of(shipped_book(), **fields)
    if cost is not None:
        assert (row["price_status"], row["cost_nano"]) == ("PARTIAL", round(cost * USD))
    assert row["at_risk_nano"] == (None if risk is None else round(risk * USD))
    assert (row["at_risk_eur_nano"] is None) == (risk is None or row["fx_eur_date"] is None)


UNSTATED: list[tuple[dict[str, Any], float | None, str]] = [
    ({"prompt_chars": 40_000}, 0.025, "the prompt: 10,000 tokens at 2.50"),
    ({"prompt_chars": 40_000, "est_cost_nano": 7_000}, 0.000007, "its own estimate"),
    ({"prompt_chars": 40_000, "status": "CANCELLED"}, 0.025, "cut off"),
    ({"prompt_chars": 40_000, "status": "ERROR"}, None, "failed"),
    ({"prompt_chars": 40_000, "service_tier": "hyper"}, 0.05, "of a tier that nobody lists"),
    ({"prompt_chars": 40_000, "model_sent": "zeta", "provider": "nobody"}, 0.751, "75 a million and 0.001 a call"),
    ({}, None, "nothing is said"),
]


@pytest.mark.parametrize(("fields", "risk"), [pytest.param(*row[:2], id=row[2]) for row in UNSTATED])
def test_of_a_call_without_usage(fields: dict[str, Any], risk: float | None) -> None:
    row = price_one_of(shipped_book(), **({"model_sent": "gpt-4o", "usage_source": "NONE"} | fields))
    assert (row["price_status"], row["cost_nano"]) == ("NO_USAGE", None)
    assert row["at_risk_nano"] == (None if risk is None else round(risk * USD))


def test_what_is_refused_or_paid_by_a_subscription_risks_nothing() -> None:
    for fields in ({"status": "BLOCKED"}, {"service_tier": "subscription+hyper"}, {"service_tier": "subscription"}):
        row = price_one_of(shipped_book(), **{"model_sent": "gpt-4o", "input_tokens": M, "prompt_chars": 9, **fields})
        assert (row["cost_nano"], row["at_risk_nano"]) == (0, None), fields


def test_no_listed_tier_is_dearer_than_what_was_at_risk_without_it() -> None:
    """Every tier of the book, as if nobody had listed it yet."""
    book = shipped_book()
    by_context: dict[Any, dict[str, Band]] = {}
    for band in book.planner.bands:
        key = band.provider, band.model, band.above_input, band.from_second, band.days
        by_context.setdefault(key, {})[band.context] = band
    seen = 0
    for contexts in by_context.values():
        standard = contexts.get("")
        for context, band in contexts.items():
            if standard is None:
                continue
            tiers = frozenset(context.split("+")) - {""}
            (stood_in,) = apply_rules([(standard, tiers)], (), tiers)
            for unit in (unit for unit in band.prices if unit.endswith("_tokens") and unit in standard.prices):
                seen += 1
                assert band.prices[unit] * 100 <= standard.prices[unit] * stood_in.at_most_pct, (band.rule_id, unit)
    assert seen > 1_000


def test_the_guard_knows_what_is_at_risk() -> None:
    book = shipped_book()
    price_one_of(book, model_sent="gpt-4o", service_tier="hyper", input_tokens=1)  # published with what is in use
    prices = load_prices(document(book)[1], lambda: int(datetime(2026, 11, 20, 12, tzinfo=UTC).timestamp()))
    for fields in (row[0] for row in PARTIAL if not row[0].keys() & {"service_tier", "processing", "event_time"}):
        truth = price_one_of(book, **fields)
        counts = {name: fields[name] for name in fields if name.endswith("_tokens")} | fields.get("extra_units", {})
        quote = prices.quote(fields.get("provider", "openai"), fields["model_sent"], counts)
        if fields.get("provider") == "google":
            continue  # the guard is told of no place
        assert (quote.nano, quote.status, quote.at_risk_nano) == (
            truth["cost_nano"],
            truth["price_status"],
            truth["at_risk_nano"],
        ), fields


def test_an_upper_end_is_for_what_is_not_certain() -> None:
    for wrong in ({"at_most": "2"}, {"at_most": "1", "certain": False}):
        with pytest.raises(ValueError, match="at_most"):
            Factor.model_validate({"name": "x", "factor": "1.5", "source": "a page", **wrong})
