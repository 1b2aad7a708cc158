"""A time in any of four units, as number or text, in JSON or to the producer, is the same instant or refused."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.effort import examples
from tollmeter.producers.client.encoding import RefusedError, build
from tollmeter.producers.client.queue import Entry
from tollmeter.schemas.event import micros
from tollmeter.schemas.times import END_S, FIRST_S, micros_of
from tollmeter.streams.rules.events.decode_json import decode_json

ID = "0195d0e0-0000-7000-8000-000000000001"
LEAST = {"service": "shop", "provider": "openai", "model_sent": "gpt-4o"}
AT = 1_795_946_400_000_000  # 2026-11-29T10:00:00Z

READ = [
    (1_795_946_400, AT),
    (1_795_946_400_250, AT + 250_000),
    (1_795_946_400_250_001, AT + 250_001),
    (1_795_946_400_250_001_999, AT + 250_001),
    (1_795_946_400.25, AT + 250_000),
    (1_795_946_400_250.5, AT + 250_500),
    ("1795946400", AT),
    ("1795946400.123456789", AT + 123_456),
    ("1795946400250", AT + 250_000),
    ("1795946400250001", AT + 250_001),
    ("1795946400250001999", AT + 250_001),
    ("2026-11-29T10:00:00.250Z", AT + 250_000),
    ("2026-11-29T11:00:00+01:00", AT),
    (FIRST_S, FIRST_S * 1_000_000),
    (END_S * 1_000 - 1, END_S * 1_000_000 - 1_000),
]
REFUSED = [
    *(0, -1, 1, FIRST_S - 1, END_S, FIRST_S * 1_000 - 1, END_S * 1_000, FIRST_S * 1_000_000 - 1, END_S * 1_000_000),
    *(FIRST_S * 10**9 - 1, END_S * 10**9, 2**63, 10**40, -1_795_946_400, 1e300, 29_932_440.0, 20_261_129),
    *("0", "-1795946400", "20261129", "9" * 30),
]


def by_json(at: object) -> int | tuple[str, str]:
    return outcome({"event_id": ID, "occurred_at": at, **LEAST})


def by_cloudevent(at: object) -> int | tuple[str, str]:
    return outcome({"specversion": "1.0", "id": ID, "source": "s", "type": "t", "time": at, "data": LEAST})


def outcome(document: dict[str, Any]) -> int | tuple[str, str]:
    frame, _, bad = decode_json([json.dumps(document).encode()])
    return (bad[0][1], bad[0][2]) if bad else int(frame["occurred_at"][0])


def by_producer(at: object) -> int:
    return micros(build(Entry(1, ID, at, None, dict(LEAST)), {}).occurred_at)


@pytest.mark.parametrize(("given_", "right"), READ, ids=str)
def test_a_number_is_read_by_its_magnitude(given_: object, right: int) -> None:
    assert (by_json(given_), by_cloudevent(given_), by_producer(given_)) == (right, right, right)


@pytest.mark.parametrize("at", REFUSED, ids=lambda at: str(at)[:24])
def test_a_number_that_is_no_time_of_this_century_is_refused_with_the_unit(at: object) -> None:
    for refused in (by_json(at), by_cloudevent(at)):
        assert isinstance(refused, tuple)
        reason, detail = refused
        assert reason == "time_out_of_range"
        assert "microseconds since 1970 are expected" in detail
    with pytest.raises(RefusedError, match="microseconds since 1970 are expected"):
        by_producer(at)


@pytest.mark.parametrize("at", [True, [], {}, "", "now", "NaN", "inf", "1e9", "0x6b0b", "١٧٩٥٩٤٦٤٠٠", " 1795946400"])
def test_what_is_no_number_is_no_time(at: object) -> None:
    refused = by_json(at)
    assert isinstance(refused, tuple)
    assert refused[0] == "bad_value"


UNITS = [1, 1_000, 1_000_000, 1_000_000_000]


@settings(max_examples=examples(300), deadline=None)
@given(st.integers(FIRST_S, END_S - 1), st.integers(0, 999_999_999), st.sampled_from(UNITS))
def test_the_same_instant_in_four_units_as_number_or_text(seconds: int, nanos: int, per_s: int) -> None:
    number = (seconds * 10**9 + nanos) * per_s // 10**9
    right = number * 10**6 // per_s
    for at in (number, str(number)):
        assert (by_json(at), by_producer(at)) == (right, right)


@given(st.integers() | st.floats() | st.integers(0, 5 * 10**18))
def test_no_number_means_two_times(number: float) -> None:
    meanings = [per_s for per_s in UNITS if FIRST_S * per_s <= number < END_S * per_s]
    assert len(meanings) <= 1
    assert (micros_of(number) is not None) == bool(meanings)
