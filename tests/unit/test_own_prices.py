"""A price file of one's own: each amount worked out by hand, and what is published under the rule's id gives it again.

o1 costs 15 USD a million tokens of input, in 2026-09 the book has no price for any of its tiers; the shipped guess of
priority is twice the standard, of batch half.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.exchange import dated
from tests.price_events import price_one_of
from tollmeter.streams.price.book import publish
from tollmeter.streams.price.book.book import PriceBook, load
from tollmeter.streams.rules.pricing.rates import Band

DEAL = "  - {name: deal, provider: openai, factor: '0.8', source: contract}\n"
PRIORITY = "  - {name: own-priority, provider: openai, tier: priority, factor: '1.7', source: contract}\n"
BATCH = "  - {name: own-batch, provider: openai, tier: batch, factor: '0.4', source: contract}\n"
LATER = "  - {name: later, provider: openai, tier: batch, factor: '0.4', valid_from: 2026-09-15, source: contract}\n"
GUESS = "  - {name: guess, provider: openai, model: o1*, factor: '1.1', certain: false, source: rumour}\n"
RATES = "rates:\n  - {name: seat, provider: openai, model: o1*, usd_per_mtok: {input_tokens: 10}, source: contract}\n"
RATES_BATCH = RATES + (
    "  - {name: dark, provider: openai, model: o1, context: batch, usd_per_mtok: {input_tokens: 4}, source: contract}\n"
)
STANDARD: dict[str, Any] = {"service_tier": ""}
IN_BATCH: dict[str, Any] = {"processing": "BATCH"}
IN_PRIORITY: dict[str, Any] = {"service_tier": "priority"}

CASES = [
    pytest.param("", IN_PRIORITY, "PARTIAL", 30_000_000, id="the shipped guess"),
    pytest.param("", IN_BATCH, "PRICED", 7_500_000, id="the shipped discount"),
    pytest.param(f"factors:\n{DEAL}", STANDARD, "OVERRIDE", 12_000_000, id="a deal"),
    pytest.param(f"factors:\n{DEAL}", IN_BATCH, "OVERRIDE", 6_000_000, id="a deal on the shipped discount"),
    pytest.param(f"factors:\n{DEAL}", IN_PRIORITY, "PARTIAL", 24_000_000, id="a deal makes a guess no surer"),
    pytest.param(
        f"factors:\n{PRIORITY}", IN_PRIORITY, "OVERRIDE", 25_500_000, id="a tier in place of the shipped guess"
    ),
    pytest.param(f"factors:\n{BATCH}", IN_BATCH, "OVERRIDE", 6_000_000, id="a tier in place of the shipped discount"),
    pytest.param(f"factors:\n{BATCH}", IN_PRIORITY, "PARTIAL", 30_000_000, id="a factor for another tier"),
    pytest.param(f"factors:\n{DEAL}{PRIORITY}", IN_PRIORITY, "OVERRIDE", 20_400_000, id="a deal and a tier"),
    pytest.param(f"factors:\n{PRIORITY}{DEAL}", IN_PRIORITY, "OVERRIDE", 20_400_000, id="the same the other way round"),
    pytest.param(f"factors:\n{LATER}", IN_BATCH, "PRICED", 7_500_000, id="a tier's factor of later"),
    pytest.param(f"factors:\n{GUESS}", STANDARD, "PARTIAL", 16_500_000, id="a factor that is a guess"),
    pytest.param(f"factors:\n{GUESS}{BATCH}", IN_BATCH, "PARTIAL", 6_600_000, id="a guess stays one in a sure tier"),
    pytest.param(RATES, STANDARD, "OVERRIDE", 10_000_000, id="rates"),
    pytest.param(RATES, IN_BATCH, "PRICED", 7_500_000, id="rates say nothing of a tier that has others"),
    pytest.param(RATES_BATCH, IN_BATCH, "OVERRIDE", 4_000_000, id="rates of a tier"),
    pytest.param(f"factors:\n{DEAL}{BATCH}{RATES}", STANDARD, "OVERRIDE", 10_000_000, id="a deal is no part of rates"),
]


@pytest.fixture(scope="module")
def book_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[PriceBook, dict[str, Band]]]:
    """Give the book with these rules in front, and the rules that are published of it, by their ids."""

    @cache
    def made(rules: str) -> tuple[PriceBook, dict[str, Band]]:
        own = tmp_path_factory.mktemp("own") / "own.yaml"
        own.write_text(f"version: 1\n{rules}")
        book = load(dated().model_copy(update={"prices_file": str(own)}))
        return book, {band.rule_id: band for band in publish.rules(book)}

    return made


@pytest.mark.parametrize(("rules", "fields", "status", "cost_nano"), CASES)
def test_a_file_of_ones_own(
    book_of: Callable[[str], tuple[PriceBook, dict[str, Band]]],
    rules: str,
    fields: dict[str, Any],
    status: str,
    cost_nano: int,
) -> None:
    book, published = book_of(rules)
    when = datetime(2026, 9, 10, 12, tzinfo=UTC)
    row = price_one_of(book, model_sent="o1", input_tokens=1_000, event_time=when, **fields)
    assert (row["price_status"], row["cost_nano"]) == (status, cost_nano)
    assert publish.rule_of(published[row["rule_id"]])["rate_pico"]["input_tokens"] == cost_nano


MAPPED = """version: 1
factors:
  - {name: deal, provider: anthropic, factor: "0.8", valid_from: 2026-11-10, source: contract}
  - {name: own-batch, provider: anthropic, tier: batch, factor: "0.4", source: contract}
fees:
  - {name: gateway, provider: anthropic, usd_per_unit: {requests: 0.001}, valid_from: 2026-11-20, source: contract}
"""


@pytest.mark.parametrize(
    ("model", "day", "processing", "cost_nano"),
    [
        pytest.param("claude-mythos-preview", 5, "REALTIME", 10_000_000, id="before the deal"),
        pytest.param("claude-mythos-preview", 15, "REALTIME", 8_000_000, id="in the deal"),
        pytest.param(
            "claude-mythos-preview",
            25,
            "REALTIME",
            8_800_000,
            id="with a fee of 0.001 a call, which the deal lowers, too",
        ),
        pytest.param("claude-mythos-preview", 5, "BATCH", 4_000_000, id="a tier that no source prices"),
        pytest.param("claude-mythos-5", 5, "BATCH", 5_000_000, id="a tier that has a price"),
    ],
)
def test_a_name_that_one_source_alone_prices(
    tmp_path: Path, model: str, day: int, processing: str, cost_nano: int
) -> None:
    """10 USD a million: rules of one's own hold there as elsewhere, and make it no surer."""
    own = tmp_path / "own.yaml"
    own.write_text(MAPPED)
    book = load(dated().model_copy(update={"prices_file": str(own)}))
    when = datetime(2026, 11, day, 12, tzinfo=UTC)
    call = {"provider": "anthropic", "model_sent": model, "input_tokens": 1_000, "processing": processing}
    row = price_one_of(book, event_time=when, **call)
    assert (row["price_status"], row["cost_nano"]) == ("PARTIAL", cost_nano)
