"""Log lines in exactly the shape that people have, bare and as log stores wrap them."""

import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from tollmeter.producers.imports.log_lines import from_line, is_line, parse, to_line, unwrap
from tollmeter.schemas.event import UsageEvent

LINE: dict[str, Any] = {
    "t": "openai_usage",
    "severity": "INFO",
    "request_id": "r-1",
    "client_ip": "203.0.113.7",
    "model_sent": "gpt-4o",
    "model_used": "gpt-4o-2024-08-06",
    "prompt_chars": 4000,
    "usage": {"prompt_tokens": 1000, "output_tokens": 200},
    "est_cost": 0.0045,
    "api_key_id": "a1b2c3d4",
    "timestamp": "2026-11-22T10:00:00.123456Z",
}


def test_a_line_becomes_an_event() -> None:
    event = from_line(LINE, org_id="acme")
    assert event.occurred_at == datetime(2026, 11, 22, 10, 0, 0, 123456, tzinfo=UTC)
    assert (event.request_id, event.client_ip, event.org_id) == ("r-1", "203.0.113.7", "acme")
    assert (event.model_sent, event.model_used, event.prompt_chars) == ("gpt-4o", "gpt-4o-2024-08-06", 4000)
    assert (event.input_tokens, event.output_tokens, event.reported_cost_nano) == (1000, 200, 4_500_000)
    assert (event.provider, event.api_key_id, event.status, event.usage_source) == (
        "openai",
        "a1b2c3d4",
        "OK",
        "PROVIDER",
    )


def test_and_back() -> None:
    assert to_line(from_line(LINE)) == LINE
    assert list(to_line(from_line(LINE))) == list(LINE)


def test_the_same_line_has_the_same_id_however_it_was_parsed() -> None:
    first = from_line(LINE).event_id
    assert UUID(first).version == 5
    assert from_line(parse(json.dumps(LINE))).event_id == first
    assert from_line(dict(reversed(LINE.items()))).event_id == first
    assert from_line({**LINE, "request_id": "r-2"}).event_id != first


def test_cost_has_no_float_error() -> None:
    assert from_line(parse('{"est_cost":0.1234567895,"model_sent":"m","timestamp":"2026-11-22T10:00:00Z"}')) == (
        from_line({"est_cost": Decimal("0.1234567895"), "model_sent": "m", "timestamp": "2026-11-22T10:00:00Z"})
    )
    assert from_line({**LINE, "est_cost": "0.000000001"}).reported_cost_nano == 1
    assert from_line({**LINE, "est_cost": None}).reported_cost_nano is None


@pytest.mark.parametrize(
    "wrapped",
    [
        {"insertId": "i-1", "jsonPayload": LINE, "timestamp": "2030-01-01T00:00:00Z", "severity": "DEFAULT"},
        {"insertId": "i-1", "textPayload": json.dumps(LINE), "timestamp": "2030-01-01T00:00:00Z"},
        {"insertId": "i-1", "textPayload": "app: " + json.dumps(LINE)},
    ],
    ids=["jsonPayload", "textPayload", "prefixed textPayload"],
)
def test_wrapped_by_a_log_store(wrapped: dict[str, Any]) -> None:
    assert is_line(wrapped)
    event = from_line(wrapped)
    assert event.event_id == from_line({**wrapped, "labels": {"more": 1}}).event_id
    assert event.event_id != from_line({**wrapped, "insertId": "i-2"}).event_id
    assert to_line(event) == LINE


def test_the_wrapper_supplies_what_the_line_lacks() -> None:
    payload = {name: value for name, value in LINE.items() if name not in ("timestamp", "severity")}
    entry = {
        "insertId": "i",
        "jsonPayload": payload,
        "timestamp": "2026-11-22T10:00:00.123456789Z",
        "severity": "ERROR",
    }
    event = from_line(entry)
    assert event.occurred_at.microsecond == 123456
    assert event.status == "ERROR"


def test_whole_numbers_that_became_floats_are_whole() -> None:
    line = {**LINE, "usage": {"prompt_tokens": 1000.0, "output_tokens": Decimal("200.0")}, "prompt_chars": 4000.0}
    assert to_line(from_line(line))["usage"] == LINE["usage"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"t": "other"}, "t: 'other'"),
        ({"timestamp": None}, "timestamp: missing"),
        ({"timestamp": "soon"}, "timestamp: 'soon' is not a time"),
        ({"timestamp": 7}, "timestamp: not text"),
        ({"timestamp": "0001-01-01T00:00:00+23:00"}, "timestamp"),
        ({"model_sent": None, "model_used": None}, "model_sent: missing"),
        ({"usage": [1]}, "usage: not an object"),
        ({"usage": {"prompt_tokens": 1.5}}, "usage.prompt_tokens"),
        ({"usage": {"prompt_tokens": float("inf")}}, "usage.prompt_tokens"),
        ({"usage": {"prompt_tokens": float("nan")}}, "usage.prompt_tokens"),
        ({"usage": {"prompt_tokens": True}}, "usage.prompt_tokens"),
        ({"usage": {"prompt_tokens": -1}}, "input_tokens"),
        ({"usage": {"prompt_tokens": 10**9}}, "input_tokens"),
        ({"est_cost": -0.1}, "est_cost"),
        ({"est_cost": "free"}, "est_cost"),
        ({"est_cost": float("nan")}, "est_cost"),
        ({"request_id": 7}, "request_id: not text"),
        ({"request_id": "x" * 300}, "request_id"),
        ({"prompt_chars": "many"}, "prompt_chars"),
    ],
)
def test_bad_lines_say_what_and_where(change: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError) as raised:
        from_line({**LINE, **change})
    assert says in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("text", ["", "{", "[1", '{"a": NaN}', "[" * 200_000])
def test_bad_json_is_one_line(text: str) -> None:
    with pytest.raises(ValueError, match="not JSON") as raised:
        parse(text)
    assert "\n" not in str(raised.value)


def test_an_entry_without_a_line_is_refused() -> None:
    with pytest.raises(ValueError, match="neither jsonPayload nor"):
        unwrap({"insertId": "i", "httpRequest": {}})
    with pytest.raises(ValueError, match="no JSON object"):
        unwrap({"insertId": "i", "jsonPayload": "text"})
    assert not is_line({"t": "http"})


def test_lines_never_carry_a_key() -> None:
    event = from_line({**LINE, "api_key_id": "sk-proj-abcdefghijklmnop1234"}, pepper="p")
    assert len(event.api_key_id) == 16


def test_what_is_unknown_is_null() -> None:
    at = datetime(2026, 11, 22, tzinfo=UTC)
    event = UsageEvent(
        event_id="0195d0e0-0000-7000-8000-000000000001",
        occurred_at=at,
        service="s",
        provider="openai",
        model_sent="m",
        status="BLOCKED",
    )
    line = to_line(event)
    assert (line["client_ip"], line["est_cost"], line["prompt_chars"], line["severity"]) == (
        None,
        None,
        None,
        "WARNING",
    )
    assert to_line(event, est_cost=Decimal("0.25"))["est_cost"] == 0.25
