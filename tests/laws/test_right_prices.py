"""No price looks surer than it is: whatever provider, model, tier and date, a rate that nobody knows prices nothing.

The shipped book against rules of three lines each; the reference price is the same call's at the standard tier.
"""

from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.effort import examples
from tests.price_events import priced, shipped_book
from tollmeter.streams.price.book import overrides
from tollmeter.streams.price.book.compile import PROVIDERS

FOLDER = Path(overrides.__file__).parent
NAMES = [(provider.id, model.id) for provider in PROVIDERS for model in provider.models]
STANDARD = ("", "default", "standard", "auto")
TIERS = ("batch", "flex", "priority", "fast", "scale", "provisioned", "made-up")
BEGIN, SECONDS = datetime(2020, 1, 1, tzinfo=UTC), 7 * 366 * 86_400
NOBODYS = ("nobody", "my-gateway", "huggingface", "Σ", "openai ")


@cache
def book() -> Any:
    return shipped_book()


@st.composite
def calls(draw: st.DrawFn) -> dict[str, Any]:
    provider, model = draw(st.sampled_from(NAMES))
    tier = draw(st.sampled_from((*STANDARD, *TIERS)))
    return {
        "provider": draw(st.sampled_from(NOBODYS)) if draw(st.integers(0, 6)) == 0 else provider,
        "model_sent": model if draw(st.integers(0, 9)) else f"zz-{model[::-1]}",
        "service_tier": "" if tier == "batch" else tier,
        "processing": "BATCH" if tier == "batch" else "REALTIME",
        "event_time": BEGIN + timedelta(seconds=draw(st.integers(0, SECONDS))),
        "input_tokens": 10_000,
        "cache_read_tokens": draw(st.sampled_from((0, 5_000))),
        "output_tokens": 1_000,
    }


@settings(max_examples=examples(20))
@given(st.lists(calls(), min_size=50, max_size=50))
def test_no_price_looks_surer_than_it_is(asked: list[dict[str, Any]]) -> None:
    standard = [call | {"service_tier": "", "processing": "REALTIME"} for call in asked]
    for call, row, usual in zip(asked, priced(book(), asked), priced(book(), standard), strict=True):
        status, cost, risk = row["price_status"], row["cost_nano"], row["at_risk_nano"]
        tier = "batch" if call["processing"] == "BATCH" else call["service_tier"]
        if status == "UNKNOWN_MODEL":
            assert cost is None
            assert risk, "whatever nobody knows may cost something"
        if status == "PRICED" and tier not in STANDARD and cost:
            assert cost != usual["cost_nano"] or usual["price_status"] != "PRICED", (
                "the standard rate is not the tier's"
            )
        if status == "PRICED":
            assert call["event_time"].year >= 2022, "before any price that is known"
        if tier == "made-up":
            assert status in ("PARTIAL", "UNKNOWN_MODEL", "OVERRIDE", "FREE")


def test_nothing_is_priced_before_its_first_known_price() -> None:
    """Every model of the book and every rule that ships, with its tier and units, at a time before any of them."""
    shipped = yaml.safe_load((FOLDER / "overrides.yaml").read_text(encoding="utf-8"))
    common = {"event_time": BEGIN, "input_tokens": 10_000, "output_tokens": 1_000}
    asked = [{"provider": provider, "model_sent": model, **common} for provider, model in NAMES]
    for rule in (one for kind in ("rates", "factors", "fees") for one in shipped[kind]):
        name = {
            part: str(rule.get(key, "x")).replace("*", "x")
            for part, key in (("provider",) * 2, ("model_sent", "model"))
        }
        units = dict.fromkeys(rule.get("usd_per_unit", {}), 1.0)
        for tier in {"", "fast", str(rule.get("context") or rule.get("tier") or "").replace("*", "")}:
            for operation in ("chat", "image", "responses"):
                call = {**name, "service_tier": tier, "operation": operation, "event_time": BEGIN}
                asked += [call | common, call | {"extra_units": units}]
    rows = priced(book(), asked)
    assert [row["rule_id"] for row in rows if row["price_status"] == "PRICED"] == []
    assert len(rows) > 1_500


def test_a_factor_bills_a_tier_as_the_book_does_since_it_lists_it() -> None:
    """Each tier on the day before the book began to list it, with cached input; the rounding of a list apart."""
    common = {"input_tokens": 1_000_000, "cache_read_tokens": 700_000, "output_tokens": 100_000}
    asked = []
    for band in book().planner.bands:
        if band.context in ("batch", "flex") and band.valid_from and band.above_input < 0 and not band.partial:
            tier = {"processing": "BATCH"} if band.context == "batch" else {"service_tier": band.context}
            day = datetime(band.valid_from.year, band.valid_from.month, band.valid_from.day, 20, tzinfo=UTC)
            for at in (day - timedelta(days=1), day):
                call = {"provider": band.provider, "model_sent": band.model, "event_time": at, **common}
                asked += [call, call | tier]
    rows = priced(book(), asked)
    seen = 0
    for before, guessed, after, listed in zip(rows[::4], rows[1::4], rows[2::4], rows[3::4], strict=True):
        if guessed["price_status"] == "PRICED" and before["cost_nano"] == after["cost_nano"]:
            seen += 1
            assert abs(guessed["cost_nano"] - listed["cost_nano"]) <= listed["cost_nano"] // 100, listed["rule_id"]
    assert seen > 50


def test_tiers_with_a_rate_are_priced_by_it() -> None:
    at = datetime(2026, 11, 20, tzinfo=UTC)
    call = {"provider": "openai", "model_sent": "gpt-4o", "event_time": at, "input_tokens": 1_000_000}
    usual, batch = priced(book(), [call, call | {"processing": "BATCH"}])
    assert (usual["price_status"], usual["cost_nano"]) == ("PRICED", 2_500_000_000)
    assert (batch["price_status"], batch["cost_nano"]) == ("PRICED", 1_250_000_000)
