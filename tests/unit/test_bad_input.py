"""Every bad input ends as one dead letter or one flagged row, with its neighbours unharmed and the counts adding up."""

import json
from types import SimpleNamespace
from typing import Any

import pytest

from tests.exchange import dated
from tests.usage_rows import AT, as_json, avro, cloudevent, confluent, fields
from tollmeter.schemas import codec
from tollmeter.schemas.event import MAX_TOKENS
from tollmeter.streams.price.batch import price_batch
from tollmeter.streams.price.book.book import PriceBook, load
from tollmeter.streams.rules.events.decode_avro import MAX_BODY_BYTES, REASONS

BODY = codec.encode_body(fields(1))
DAY = 86_400_000_000


def raw(text: str) -> bytes:
    """JSON of a whole event with one member written by hand."""
    return as_json(fields(1))[:-1] + b", " + text.encode() + b"}"


def changed(**changes: Any) -> bytes:
    return avro(fields(1, **changes))


BAD = {
    "no value": (None, "empty"),
    "empty value": (b"", "empty"),
    "garbage": (b"\xde\xad\xbe\xef", "unknown_framing"),
    "text": (b"hello", "unknown_framing"),
    "non-UTF-8": (b"\xff\xfe{}", "unknown_framing"),
    "non-UTF-8 in JSON": (b'{"event_id": "\xff"}', "bad_json"),
    "non-UTF-8 in Avro": (codec.SINGLE_OBJECT_HEADER + BODY.replace(b"checkout", b"check\xff\xfe\xfd"), "bad_avro"),
    "header alone": (codec.SINGLE_OBJECT_HEADER, "bad_event_id"),
    "other fingerprint": (b"\xc3\x01" + bytes(8) + BODY, "unknown_fingerprint"),
    "other schema id": (b"\x00\x00\x00\x00\x63" + BODY, "unknown_fingerprint"),
    "bare body": (BODY, "unknown_framing"),
    "truncated Avro": (codec.SINGLE_OBJECT_HEADER + BODY[:-4], "bad_avro"),
    "truncated in the id": (codec.SINGLE_OBJECT_HEADER + BODY[:20], "bad_avro"),
    "trailing garbage": (codec.SINGLE_OBJECT_HEADER + BODY + b"\x00garbage", "trailing_bytes"),
    "two events in one": (codec.SINGLE_OBJECT_HEADER + BODY + codec.encode_body(fields(2)), "trailing_bytes"),
    "length beyond the end": (codec.SINGLE_OBJECT_HEADER + BODY[:37] + b"\xfe" * 8 + b"\x01" + BODY[46:], "bad_avro"),
    "over-long integer": (codec.SINGLE_OBJECT_HEADER + BODY[:37] + b"\x80" * 40 + b"\x01" + BODY[45:], "bad_avro"),
    "map without an end": (codec.SINGLE_OBJECT_HEADER + BODY[:-3] + b"\x7f" + BODY[-2:], "bad_avro"),
    "too large": (avro(fields(1, request_id="x" * MAX_BODY_BYTES)), "too_large"),
    "huge JSON": (raw(f'"session_id": "{"x" * 10_000_000}"'), "too_large"),
    "long text": (changed(session_id="x" * 257), "bad_value"),
    "nested JSON": (b"[" * 30_000, "bad_json"),
    "nested object": (raw('"tags": {"a": {"b": {"c": 1}}}'), "bad_value"),
    "JSON list": (b"[1, 2]", "not_an_object"),
    "broken JSON": (b'{"event_id": ', "bad_json"),
    "empty object": (b"{}", "bad_event_id"),
    "missing model": (as_json({k: v for k, v in fields(1).items() if k != "model_sent"}), "missing_field"),
    "misspelt counter": (raw('"input_token": 7'), "bad_value"),
    "text as number": (raw('"input_tokens": "7"'), "bad_value"),
    "float as number": (raw('"input_tokens": 7.0'), "bad_value"),
    "bool as number": (raw('"input_tokens": true'), "bad_value"),
    "number as text": (raw('"user_id": 7'), "bad_value"),
    "NaN": (raw('"extra_units": {"web_searches": NaN}'), "bad_json"),
    "infinite number": (raw('"extra_units": {"web_searches": 1e999}'), "bad_json"),
    "NaN in Avro": (changed(extra_units={"web_searches": float("nan")}), "bad_value"),
    "infinite in Avro": (changed(extra_units={"web_searches": float("inf")}), "bad_value"),
    "number above 64 bits": (raw('"input_tokens": 99999999999999999999'), "bad_value"),
    "negative count": (changed(input_tokens=-1), "bad_value"),
    "negative count, JSON": (as_json(fields(1, output_tokens=-5)), "bad_value"),
    "absurd count": (changed(input_tokens=MAX_TOKENS + 1), "bad_value"),
    "cached above input": (changed(input_tokens=10, cache_read_tokens=11), "bad_value"),
    "reasoning above output": (changed(output_tokens=10, reasoning_tokens=11), "bad_value"),
    "negative unit": (changed(extra_units={"web_searches": -1.0}), "bad_value"),
    "absurd reported cost": (changed(reported_cost_nano=10**12 + 1), "bad_value"),
    "negative latency": (changed(latency_ms=-1), "bad_value"),
    "unknown status": (as_json(fields(1, status="FINE")), "bad_value"),
    "17 tags": (changed(tags={f"k{n}": "v" for n in range(17)}), "bad_value"),
    "long tag": (changed(tags={"k": "v" * 129}), "bad_value"),
    "upper-case id": (changed(event_id=fields(10)["event_id"].upper()), "bad_event_id"),
    "id that is no UUID": (changed(event_id="not-a-uuid"), "bad_event_id"),
    "id of 36 other characters": (changed(event_id="x" * 36), "bad_event_id"),
    "a raw key": (changed(api_key_id="sk-proj-abcdefghijklmnopqrstuvwxyz0123456789"), "secret"),
    "before 1970": (changed(occurred_at=-1), "time_out_of_range"),
    "after 2100": (changed(occurred_at=4_102_444_800_000_000), "time_out_of_range"),
    "CloudEvent without data": (b'{"specversion": "1.0", "id": "1", "source": "s", "type": "t"}', "bad_value"),
    "CloudEvent of version 2": (cloudevent(fields(1)).replace(b'"1.0"', b'"2.0"'), "bad_value"),
    "CloudEvent without time": (cloudevent(fields(1)).replace(b'"time"', b'"when"'), "missing_field"),
    "time as text without zone": (as_json(fields(1, occurred_at="2026-11-22T10:00:00")), "bad_value"),
}


@pytest.fixture(scope="module")
def book() -> PriceBook:
    return load(dated())


def records(values: list[bytes | None], partition: int = 0) -> list[Any]:
    return [
        SimpleNamespace(
            value=value, partition=partition, offset=at, timestamp=AT // 1000, topic="usage.events", headers=()
        )
        for at, value in enumerate(values)
    ]


@pytest.mark.parametrize("name", BAD)
def test_bad_record_is_rejected_and_its_neighbours_are_not(name: str, book: PriceBook) -> None:
    value, reason = BAD[name]
    neighbours = [avro(fields(10)), confluent(fields(11)), as_json(fields(12))]
    priced = price_batch([records([neighbours[0], value, neighbours[1], neighbours[2]])], book)
    assert [(reject.position, reject.reason) for reject in priced.rejects] == [(1, reason)]
    assert reason in REASONS
    assert priced.rows["event_id"].to_list() == [fields(number)["event_id"] for number in (10, 11, 12)]
    assert priced.rows["src_offset"].to_list() == [0, 2, 3]
    assert priced.rows["cost_nano"].null_count() == 0


def test_all_bad_together_in_a_large_pass(book: PriceBook) -> None:
    values: list[bytes | None] = [avro(fields(number)) for number in range(300)]
    for number, (value, _) in enumerate(BAD.values()):
        values.insert(number * 5, value)
    priced = price_batch([records(values)], book)
    assert len(priced.rejects) == len(BAD)
    assert priced.rows.height == 300
    (source,) = priced.sources
    assert source == (0, 0, len(values) - 1, len(values), len(BAD))
    blocks = [block for part in priced.blocks(4, book.id, "boot").values() for block in part]
    assert sum(int(dict(block.headers)["rows"]) for block in blocks) == 300


@pytest.mark.parametrize(
    ("occurred_at", "flag"),
    [
        pytest.param(AT, "", id="now"),
        pytest.param(AT - 35 * DAY, "", id="35 days old"),
        pytest.param(AT - 36 * DAY, "old", id="36 days old"),
        pytest.param(AT + 300_000_000, "", id="5 minutes ahead"),
        pytest.param(AT + 301_000_000, "ahead", id="more than 5 minutes ahead"),
        pytest.param(AT + 31 * DAY, "ahead", id="a month ahead"),
        pytest.param(AT - 400 * DAY, "old", id="400 days old"),
        pytest.param(AT + 400 * DAY, "ahead", id="400 days ahead"),
    ],
)
def test_odd_times_are_kept_and_flagged(occurred_at: int, flag: str, book: PriceBook) -> None:
    rows = price_batch([records([avro(fields(1, occurred_at=occurred_at))])], book).rows
    assert rows["flags"].to_list() == [flag]


@pytest.mark.parametrize(
    ("occurred_at", "said"),
    [
        (0, "days before the event arrived"),
        (AT // 1_000, "days before the event arrived"),
        (AT // 1_000_000, "days before the event arrived"),
        (AT - 400 * DAY - 1_000, "400 days before the event arrived"),
        (AT + 400 * DAY + 1_000, "400 days after the event arrived"),
        (4_070_908_800_000_000, "days after the event arrived"),
    ],
)
@pytest.mark.parametrize("neighbours", [0, 200])
def test_a_time_of_another_year_is_refused(occurred_at: int, said: str, neighbours: int, book: PriceBook) -> None:
    good = [avro(fields(number)) for number in range(2, 2 + neighbours)]
    priced = price_batch([records([*good, avro(fields(1, occurred_at=occurred_at)), b""])], book)
    assert sorted((reject.position, reject.reason) for reject in priced.rejects) == [
        (neighbours, "time_out_of_range"),
        (neighbours + 1, "empty"),
    ]
    assert said in next(reject.detail for reject in priced.rejects if reject.position == neighbours)
    assert priced.rows["src_offset"].to_list() == list(range(neighbours))


def test_a_time_of_another_year_that_is_marked_as_backfill_is_kept(book: PriceBook) -> None:
    source = records([avro(fields(number, occurred_at=AT - 900 * DAY)) for number in range(3)])
    source[1].headers = [("tollmeter-backfill", b"1")]
    priced = price_batch([source], book)
    assert priced.rows["event_time"].dt.epoch("us").to_list() == [AT - 900 * DAY]
    assert [reject.position for reject in priced.rejects] == [0, 2]


def test_what_is_unknown_is_kept_with_its_status(book: PriceBook) -> None:
    values = [
        avro(fields(1, model_sent="nobody-knows-this", provider="nobody")),
        avro(fields(2, status="BLOCKED", input_tokens=0, output_tokens=0)),
        avro(
            {
                **codec.DEFAULTS,
                **{k: fields(3)[k] for k in ("event_id", "occurred_at")},
                "service": "",
                "provider": "",
                "model_sent": "",
            }
        ),
    ]
    rows = price_batch([records(values)], book).rows
    assert rows["cost_nano"].to_list()[:2] == [None, 0]
    assert rows["price_status"].to_list()[0] == "UNKNOWN_MODEL"
    assert rows.height == 3


@pytest.mark.parametrize("ip", ["", "203.0.113.7", "203.0.113.0", "2001:db8::1", "9f86d081884c7d65"])
def test_every_form_of_address_passes(ip: str, book: PriceBook) -> None:
    assert price_batch([records([avro(fields(1, client_ip=ip))])], book).rows["client_ip"].to_list() == [ip]


def test_every_format_gives_the_same_row(book: PriceBook) -> None:
    values = [encode(fields(1)) for encode in (avro, confluent, as_json, cloudevent)]
    rows = price_batch([records(values)], book).rows.drop("src_offset")
    assert rows.height == 4
    assert rows.unique().height == 1


def test_null_and_absent_in_json_mean_the_default(book: PriceBook) -> None:
    few = {k: fields(1)[k] for k in ("event_id", "service", "provider", "model_sent")}
    text = json.dumps({**few, "occurred_at": "2026-11-22T10:00:00Z", "client_ip": None, "latency_ms": None}).encode()
    rows = price_batch([records([text])], book).rows
    assert rows["event_time"].dt.epoch("us").to_list() == [AT]
    assert rows["client_ip"].to_list() == [""]
    assert rows["operation"].to_list() == ["chat"]
    assert rows["latency_ms"].to_list() == [None]


def test_empty_pass_says_what_it_has_read(book: PriceBook) -> None:
    priced = price_batch([records([b"garbage"])], book)
    (block,) = priced.blocks(4, book.id, "boot")[0]
    assert dict(block.headers)["sources"] == b"[[0,0,0,1,1,0]]"
    assert dict(block.headers)["rows"] == b"0"
