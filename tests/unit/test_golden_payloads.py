"""Answers as providers document them, with the events and the cost worked out by hand; each names its source."""

import json
from datetime import datetime
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from tests.price_events import price_one_of, shipped_book
from tollmeter.admin.quote import Priced, price_answer
from tollmeter.cli.quote import differences
from tollmeter.producers.extract.extract import extract

FOLDER = Path(__file__).parents[1] / "golden" / "payloads"
USED = (
    *("operation", "extra_units", "input_tokens", "cache_read_tokens", "cache_write_tokens", "cache_write_1h_tokens"),
    *("output_tokens", "reasoning_tokens"),
)
AT = "2026-11-29T12:00:00+00:00"


@cache
def cases() -> dict[str, dict[str, Any]]:
    found = {}
    for file in sorted(FOLDER.glob("*.json")):
        for case in json.loads(file.read_text(encoding="utf-8"))["cases"]:
            found[f"{file.stem}: {case['name']}"] = case
    return found


def price(case: dict[str, Any]) -> list[Priced]:
    moment = datetime.fromisoformat(case.get("at", AT))
    return price_answer(shipped_book(), case.get("stream") or case.get("input"), case.get("keywords", {}), moment)


@pytest.mark.parametrize("name", cases())
def test_answer(name: str) -> None:
    case = cases()[name]
    right = dict(case["right"])
    priced = price(case)
    if right.pop("events", None) == 0:
        assert priced == []
        return
    assert priced
    assert differences(priced, right) == []


@pytest.mark.parametrize("name", cases())
def test_what_a_model_that_nobody_knows_uses_is_at_risk(name: str) -> None:
    for one, provider in product(price(cases()[name]), ("nobody", "openai", "voyageai")):
        used = {name: value for name in USED if (value := getattr(one.event, name))}
        row = price_one_of(shipped_book(), provider=provider, model_used="zz-made-up", **used)
        if row["price_status"] == "UNKNOWN_MODEL":
            assert row["at_risk_nano"], one.event.extra_units


@pytest.mark.parametrize("name", cases())
def test_every_case_names_its_source(name: str) -> None:
    source = cases()[name]["source"]
    assert source == "robustness" or "2026" in source or "SDK" in source


@pytest.mark.parametrize("name", cases())
def test_one_event_is_never_priced_at_a_part(name: str) -> None:
    """Where an answer makes several events, the one of `extract` holds them all, or its cost is PARTIAL."""
    case = cases()[name]
    priced = price(case)
    moment = datetime.fromisoformat(case.get("at", AT))
    answer = case.get("stream") or case.get("input")
    event = extract(answer, started_at=moment, **case.get("keywords", {}))
    if len(priced) > 1 and sum(one.event.input_tokens for one in priced) != event.input_tokens:
        assert "other_model_tokens" in event.extra_units
