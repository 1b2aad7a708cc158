"""Made-up traffic: a function of its seed, byte for byte what the reference encoder writes, valid and in order."""

import json
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.effort import examples
from tollmeter.schemas.codec import SINGLE_OBJECT_HEADER, decode_body, encode_body
from tollmeter.schemas.event import EPOCH, UsageEvent
from tollmeter.traffic.calls import Traffic
from tollmeter.traffic.company import company
from tollmeter.traffic.encode import encode_calls, fragments, varint
from tollmeter.traffic.fields import fields_of
from tollmeter.traffic.models import LEAK_CHOICES
from tollmeter.traffic.stream import Wire

START = 1_790_000_000_000_000
HALF_HOUR = 1_800_000_000
seeds = st.integers(0, 10_000)


@settings(deadline=None, max_examples=examples(15))
@given(seeds, st.integers(1, 400), st.sampled_from(LEAK_CHOICES), st.integers(1, 40))
def test_fast_encoder_writes_what_fastavro_writes(seed: int, events: int, leak: str, orgs: int) -> None:
    wire = Wire(company(seed, orgs), events, START, HALF_HOUR, leak)
    parts = fragments(wire.company)
    for calls in wire.traffic.blocks():
        expected = [SINGLE_OBJECT_HEADER + encode_body(fields) for fields in fields_of(wire.company, calls)]
        assert encode_calls(parts, calls) == expected


@settings(deadline=None, max_examples=examples(10))
@given(seeds)
def test_every_event_is_valid(seed: int) -> None:
    drawn = company(seed)
    for calls in Traffic(drawn, 300, START, HALF_HOUR, drawn.leaks).blocks():
        for fields in fields_of(drawn, calls):
            at = EPOCH + timedelta(microseconds=fields["occurred_at"])
            assert UsageEvent(**{**fields, "occurred_at": at}).wire() == fields
            assert json.loads(json.dumps(fields)) == fields


@settings(deadline=None, max_examples=examples(15))
@given(seeds, st.integers(1, 900), st.floats(0, 0.3), st.floats(0, 0.2), st.integers(1, 300))
def test_same_seed_gives_the_same_bytes(seed: int, events: int, resends: float, bad: float, block: int) -> None:
    def run(start: int) -> tuple[list[bytes], Wire]:
        wire = Wire(company(seed), events, start, HALF_HOUR, "both", resends, bad, block)
        return [value for _, values in wire.blocks() for value in values], wire

    once, wire = run(START)
    again, _ = run(START)
    other, _ = run(START + 1)
    assert once == again
    assert wire.sent_events == events
    assert len(once) == wire.sent_events + wire.sent_resends + wire.sent_poison
    assert not {value[11:47] for value in once if len(value) > 250} & {value[11:47] for value in other}


@settings(deadline=None, max_examples=examples(10))
@given(seeds, st.integers(2, 600), st.integers(1, 600))
def test_times_ascend_within_the_span(seed: int, events: int, block: int) -> None:
    times = [
        at for calls in Traffic(company(seed), events, START, HALF_HOUR, block=block).blocks() for at in calls.at_us
    ]
    assert len(times) == events
    assert times == sorted(times)
    assert min(times) >= START
    assert max(times) <= START + HALF_HOUR


@settings(deadline=None, max_examples=examples(10))
@given(seeds)
def test_resends_are_bytes_seen_before_and_change_nothing_else(seed: int) -> None:
    drawn = company(seed)
    plain = [v for _, values in Wire(drawn, 800, START, HALF_HOUR, "none", 0.0).blocks() for v in values]
    resent = [v for _, values in Wire(drawn, 800, START, HALF_HOUR, "none", 0.2).blocks() for v in values]
    assert list(dict.fromkeys(resent)) == plain
    assert len(resent) > len(plain)


@given(st.integers(-(2**62), 2**62))
def test_varint_is_an_avro_long(value: int) -> None:
    body = encode_body({**_blank(), "occurred_at": value})
    assert body == encode_body({**_blank(), "occurred_at": 0}).replace(b"\x00", varint(value), 1)
    assert decode_body(body)["occurred_at"] == value


def _blank() -> dict[str, object]:
    return {"event_id": "x", "occurred_at": 0, "service": "s", "provider": "p", "model_sent": "m"}


@pytest.mark.parametrize("count", [1, 4, 8, 30])
def test_organisations_differ(count: int) -> None:
    names = company(3, count).orgs
    assert len(set(names)) == count
