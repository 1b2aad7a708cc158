"""Log lines in exactly the shape that people have, bare and as log stores wrap them."""

import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from tollmeter.producers.imports.log_lines import from_line, is_line, parse, to_line, unread_cost, unwrap
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
    "timestamp": "2026-11-22T10:00:00.123Z",
}


def test_a_line_becomes_an_event() -> None:
    event = from_line(LINE, org_id="acme")
    assert event.occurred_at == datetime(2026, 11, 22, 10, 0, 0, 123_000, tzinfo=UTC)
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
        ({"timestamp": 7}, "timestamp: 7 is no time between"),
        ({"timestamp": "0001-01-01T00:00:00+23:00"}, "timestamp"),
        ({"model_sent": None, "model_used": None}, "model_sent: missing"),
        ({"usage": [1]}, "usage: not an object"),
        ({"usage": {"prompt_tokens": 1.5}}, "usage.prompt_tokens"),
        ({"usage": {"prompt_tokens": float("inf")}}, "usage.prompt_tokens"),
        ({"usage": {"prompt_tokens": float("nan")}}, "usage.prompt_tokens"),
        ({"usage": {"prompt_tokens": True}}, "usage.prompt_tokens"),
        ({"usage": {"prompt_tokens": -1}}, "input_tokens"),
        ({"usage": {"prompt_tokens": 10**9}}, "input_tokens"),
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


@pytest.mark.parametrize("cost", ["n/a", "$0.01", "free", -0.1, 1_001, float("nan"), float("inf"), "NaN", True, [], ""])
def test_a_cost_that_is_no_amount_is_left_out_and_told(cost: Any) -> None:
    line = {**LINE, "est_cost": cost}
    event = from_line(line)
    assert event.reported_cost_nano is None
    assert (event.input_tokens, event.output_tokens) == (1_000, 200)
    assert "is not an amount in USD" in unread_cost(line)
    assert unread_cost({"jsonPayload": line}) == unread_cost(line)


@pytest.mark.parametrize("cost", [None, 0, 0.0045, "0.0045", Decimal("1E-9"), 1_000])
def test_a_cost_that_is_an_amount_is_not_told(cost: Any) -> None:
    assert unread_cost({**LINE, "est_cost": cost}) == ""


@pytest.mark.parametrize(
    ("given", "address"),
    [
        ("203.0.113.7, 10.0.0.1", "203.0.113.7"),
        (" 203.0.113.7 ", "203.0.113.7"),
        ("2001:db8::7,10.0.0.1,10.0.0.2", "2001:db8::7"),
        (["203.0.113.7", "10.0.0.1"], "203.0.113.7"),
        ([], ""),
        ("", ""),
        (None, ""),
        (", ".join(["203.0.113.7"] * 99), "203.0.113.7"),
    ],
)
def test_of_a_list_of_addresses_the_first_is_the_caller(given: Any, address: str) -> None:
    assert from_line({**LINE, "client_ip": given}).client_ip == address


@pytest.mark.parametrize(
    ("model", "provider"),
    [
        ("gpt-4o", "openai"),
        ("o3", "openai"),
        ("claude-sonnet-4-5", "anthropic"),
        ("Claude-3-Haiku", "anthropic"),
        ("gemini-2.5-flash", "google"),
        ("mistral-small-2603", "mistral"),
        ("deepseek-chat", "deepseek"),
    ],
)
def test_the_name_of_a_model_tells_its_provider(model: str, provider: str) -> None:
    line = {**LINE, "model_sent": model, "model_used": model}
    event = from_line(line)
    assert event.provider == provider
    assert to_line(event) == line, "and is not said twice"
    assert from_line({**line, "provider": "azure"}).provider == "azure"
    assert to_line(from_line({**line, "provider": "azure"}))["provider"] == "azure"


@pytest.mark.parametrize(
    "told",
    [
        {"status": "BLOCKED"},
        {"status": "blocked", "severity": "WARNING"},
        {"error": "cost_cap"},
        {"blocked": True},
    ],
)
def test_a_refused_call_stays_refused_and_used_nothing(told: dict[str, Any]) -> None:
    event = from_line({**LINE, **told})
    assert (event.status, event.usage_source, event.input_tokens, event.output_tokens) == ("BLOCKED", "NONE", 0, 0)
    assert (event.reported_cost_nano, event.est_cost_nano) == (None, 4_500_000), "a guess before the call is no cost"
    line = to_line(event, est_cost=0)
    assert (line["severity"], line["status"], line["est_cost"]) == ("INFO", "BLOCKED", 0.0)
    assert list(line)[: len(LINE)] == list(LINE)
    assert from_line(line).status == "BLOCKED"


@pytest.mark.parametrize("status", ["OK", "ERROR", "BLOCKED", "CANCELLED"])
def test_every_status_survives_going_out_and_in(status: str) -> None:
    line = to_line(from_line({**LINE, "status": status}))
    assert line["severity"] == "INFO"
    assert ("status" in line) == (status != "OK")
    assert from_line(line).status == status


@pytest.mark.parametrize(
    ("micros", "shown"), [(0, "00.000Z"), (999_999, "00.999Z"), (500, "00.000Z"), (120_000, "00.120Z")]
)
def test_times_have_three_digits(micros: int, shown: str) -> None:
    event = from_line(LINE).model_copy(update={"occurred_at": datetime(2026, 11, 22, 10, 0, 0, micros, tzinfo=UTC)})
    assert to_line(event)["timestamp"] == f"2026-11-22T10:00:{shown}"


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
        "INFO",
    )
    assert to_line(event, est_cost=Decimal("0.25"))["est_cost"] == 0.25
