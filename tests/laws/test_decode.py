"""Laws: columns equal rows; every record is one row or one reject; acceptance never depends on the neighbours."""

import random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.effort import examples
from tests.usage_rows import any_event, as_json, avro, confluent, fields, wire
from tollmeter.schemas import codec
from tollmeter.schemas.times import END_S, FIRST_S
from tollmeter.streams.rules.events.decode_avro import MAX_BODY_BYTES, REASONS, Decoded, decode
from tollmeter.streams.rules.events.validate import row_problem, validate

ENUMS = ("billing_scope", "processing", "status", "usage_source")


def rows_by_position(decoded: Decoded) -> dict[int, dict[str, Any]]:
    return {at: wire(row) for at, row in zip(decoded.index, decoded.frame.to_dicts(), strict=True)}


def assert_accounted(decoded: Decoded, count: int) -> None:
    rejected = [reject.position for reject in decoded.rejects]
    assert sorted([*decoded.index, *rejected]) == list(range(count))
    assert decoded.index == sorted(decoded.index)
    assert {reject.reason for reject in decoded.rejects} <= set(REASONS)


@given(st.lists(st.tuples(any_event(), st.sampled_from([avro, confluent])), max_size=8))
@settings(deadline=None, max_examples=examples(80))
def test_columns_equal_rows(events: list[tuple[dict[str, Any], Any]]) -> None:
    values = [encode(event) for event, encode in events]
    decoded = decode(values)
    assert not decoded.rejects
    oracle = {at: codec.decode_body(codec.encode_body(event)) for at, (event, _) in enumerate(events)}
    assert rows_by_position(decoded) == oracle


@given(st.lists(any_event(), max_size=6))
@settings(deadline=None, max_examples=examples(40))
def test_json_and_avro_give_the_same_rows(events: list[dict[str, Any]]) -> None:
    finite = [
        {
            **event,
            "extra_units": {k: v for k, v in event["extra_units"].items() if abs(v) < 1e300},
            # a number in JSON may be another unit
            "occurred_at": FIRST_S * 1_000_000 + event["occurred_at"] % ((END_S - FIRST_S) * 1_000_000),
        }
        for event in events
    ]
    assert rows_by_position(decode([as_json(event) for event in finite])) == rows_by_position(
        decode([avro(event) for event in finite])
    )


def mutated(body: bytes, rng: random.Random) -> bytes:
    """Damage an Avro body as a broken or hostile producer would."""
    data = bytearray(body)
    kind = rng.randrange(6)
    at = rng.randrange(len(data))
    if kind == 0:
        for _ in range(rng.randint(1, 3)):
            data[rng.randrange(len(data))] = rng.choice([0, 1, 2, 0x7F, 0x80, 0xFE, 0xFF, rng.randrange(256)])
    elif kind == 1:
        del data[at:]
    elif kind == 2:
        data += rng.randbytes(rng.randint(1, 40))
    elif kind == 3:
        data[at:at] = rng.choice([b"\xff" * 9 + b"\x01", b"\x80" * 40, b"\xfe\xff\xff\xff\x0f", b"\x00"])
    elif kind == 4:
        data[-1:] = rng.choice([b"\x03\x20\x02a\x02b\x00", b"\x01\x10\x02a\x02b\x00", b"\xff" * 8 + b"\x01"])
    else:
        data[at : at + rng.randint(1, 9)] = b""
    return bytes(data)


def by_row(body: bytes) -> dict[str, Any] | None:
    try:
        return codec.decode_body(body)
    except ValueError:
        return None


@given(st.randoms(use_true_random=False), st.integers(1, 12))
@settings(deadline=None, max_examples=examples(150))
def test_damaged_records_harm_nobody(rng: random.Random, count: int) -> None:
    whole = [fields(number, tags={"team": "a"}, extra_units={"web_searches": 1.0}) for number in range(count)]
    damaged = {at: mutated(codec.encode_body(whole[at]), rng) for at in range(count) if rng.random() < 0.4}
    values = [
        codec.SINGLE_OBJECT_HEADER + damaged[at] if at in damaged else avro(event) for at, event in enumerate(whole)
    ]
    decoded = decode(values)
    assert_accounted(decoded, count)
    rows = rows_by_position(decoded)
    for at, event in enumerate(whole):
        if at not in damaged:
            assert rows[at] == event
        elif at in rows and (oracle := by_row(damaged[at])) is not None:
            # fastavro takes symbol -1 for the last one; here it is none, and validation refuses the row
            without = {name for name in ENUMS if rows[at][name] is None}
            without |= {
                "stream",
                "backfill",
            }  # a byte that is neither 0 nor 1 is true for one library and false for the other
            assert repr({**rows[at], **dict.fromkeys(without)}) == repr({**oracle, **dict.fromkeys(without)})
    for at, value in enumerate(values):  # alone or among others: the same verdict, the same row
        alone = decode([value])
        assert bool(alone.index) == (at in rows)
        if alone.index:
            assert repr(wire(alone.frame.row(0, named=True))) == repr(rows[at])


@given(st.lists(st.binary(max_size=300) | st.none(), max_size=10))
@settings(deadline=None)
def test_any_bytes_are_accounted_for(values: list[bytes | None]) -> None:
    assert_accounted(decode(values), len(values))


def test_blocks_of_any_length_are_read_to_their_end() -> None:
    """The last record of an inner Avro block has nobody behind it: what trails it must be seen all the same."""
    events = [fields(number) for number in range(4_100)]
    values = [avro(event) for event in events]
    for at in (1_999, 2_000, 3_999, 4_099):
        values[at] += b"\x00\x01"
    decoded = decode(values)
    assert_accounted(decoded, len(values))
    assert {(r.position, r.reason) for r in decoded.rejects} == {
        (at, "trailing_bytes") for at in (1_999, 2_000, 3_999, 4_099)
    }
    assert rows_by_position(decoded)[2_001] == events[2_001]


def test_a_flood_of_damage_is_bounded_and_accounted() -> None:
    body = codec.encode_body(fields(1))
    values = [codec.SINGLE_OBJECT_HEADER + body[: 40 + number % 100] for number in range(600)]
    decoded = decode([*values, avro(fields(2)), b"x" * (MAX_BODY_BYTES + 1)])
    assert_accounted(decoded, 602)
    assert decoded.index == [600]


@given(st.lists(any_event(), min_size=1, max_size=5), st.booleans())
@settings(deadline=None, max_examples=examples(80))
def test_screen_misses_nothing_the_row_rule_refuses(events: list[dict[str, Any]], sane: bool) -> None:
    filler = [fields(number) for number in range(70)]  # above the size that is judged row by row
    if sane:
        events = [
            {**fields(number), **{k: v for k, v in event.items() if k.endswith("_ms")}}
            for number, event in enumerate(events)
        ]
    decoded = decode([avro(event) for event in [*events, *filler]])
    good = validate(decoded.frame, decoded.index)
    expected = {at for at, row in enumerate(decoded.frame.to_dicts()) if row_problem(row)}
    assert {reject.position for reject in good.rejects} == expected
    assert sorted([*good.index, *expected]) == list(range(len(events) + 70))
