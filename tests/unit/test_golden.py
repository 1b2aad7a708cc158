"""What crosses a border, byte for byte: other programs read it, so a change here is a change for them.

A wanted change: bump the format, write the file anew from what the failing test shows, and say so in the changelog.
"""

import io
import json
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pyarrow.ipc

from tollmeter.schemas import codec
from tollmeter.schemas.alert import Alert
from tollmeter.schemas.control import PolicySet
from tollmeter.schemas.envelope import control_record, tick_record
from tollmeter.schemas.event import UsageEvent
from tollmeter.schemas.policy import Policy
from tollmeter.schemas.topics import org_partition
from tollmeter.streams.rules.events.decode_avro import decode
from tollmeter.streams.rules.records.encode import PRICED_DTYPES, encode_dicts, to_ipc

GOLDEN = Path(__file__).parents[1] / "golden"
EVENT = UsageEvent(
    event_id="0190b0a0-0000-7000-8000-000000000001",
    occurred_at=datetime(2026, 11, 20, 10, 0, 0, 123456, UTC),
    request_id="r-1",
    provider_request_id="chatcmpl-1",
    service="shop",
    org_id="acme",
    user_id="ann",
    feature="search",
    api_key_id="0123456789abcdef",
    billing_scope="ORG",
    client_ip="2001:db8::1",
    provider="openai",
    model_sent="gpt-4o",
    model_used="gpt-4o-2024-08-06",
    processing="BATCH",
    stream=True,
    status="OK",
    http_status=200,
    latency_ms=1200,
    usage_source="PROVIDER",
    input_tokens=1000,
    cache_read_tokens=200,
    output_tokens=50,
    extra_units={"web_searches": 2.0},
    reported_cost_nano=1_500_000,
    tags={"team": "blue"},
)


def golden(name: str) -> str:
    return (GOLDEN / name).read_text(encoding="utf-8").strip()


def test_avro_bytes_and_fingerprint() -> None:
    assert codec.FINGERPRINT.hex() == "685a3b962a85bcb1"
    assert codec.encode(EVENT).hex() == golden("usage_event.avro.hex")
    decoded = codec.decode_body(bytes.fromhex(golden("usage_event.avro.hex"))[len(codec.SINGLE_OBJECT_HEADER) :])
    assert decoded == EVENT.wire()


def test_what_services_of_the_first_version_send_is_the_same_event() -> None:
    old = bytes.fromhex(golden("usage_event.v1.avro.hex"))
    assert old[2:10].hex() == "ee059086d04c0cff"
    body = codec.body_of(old)
    assert body is not None
    assert codec.decode_body(body) == EVENT.wire()
    confluent = b"\x00\x00\x00\x00\x01" + old[10:]
    new = codec.encode(EVENT.model_copy(update={"event_id": EVENT.event_id[:-1] + "2", "total_tokens": 1_100}))
    for values in ([old, old], [old, new, confluent], [new, old]):
        decoded = decode(values)
        assert (decoded.rejects, decoded.index) == ([], list(range(len(values))))
        totals = [1_100 if value is new else None for value in values]
        assert decoded.frame["total_tokens"].to_list() == totals
        assert decoded.frame["backfill"].to_list() == [False] * len(values)
    assert [reject.reason for reject in decode([old + b"\x00"]).rejects] == ["trailing_bytes"]
    assert [reject.reason for reject in decode([old[:-2], old]).rejects] == ["bad_avro"]


def test_alert_bytes() -> None:
    alert = Alert(
        id="0" * 32,
        kind="budget",
        severity="warning",
        org_id="acme",
        scope="user",
        name="ann",
        period="2026-11",
        received_at=datetime(2026, 11, 20, 10, 0, 0, 987000, UTC),
        text="user ann of acme reached 80 %",
        facts={"threshold_pct": 80, "spent_nano": 8_000_000_000, "limit_nano": 10_000_000_000},
    )
    assert alert.wire().decode() == golden("alert.json")


def test_arrow_schema_of_priced_rows() -> None:
    stream = to_ipc(encode_dicts(pl.DataFrame(schema=PRICED_DTYPES)))
    schema = pyarrow.ipc.open_stream(io.BytesIO(stream)).schema
    text = "\n".join(f"{field.name}: {field.type}{'' if field.nullable else ' not null'}" for field in schema)
    assert text == golden("usage_priced.arrow.txt")


def test_control_and_tick_bytes() -> None:
    value, headers = control_record(PolicySet(policy=Policy(org_id="acme", monthly_limit_micro=10_000_000)))
    tick, tick_headers = tick_record({0: 1_795_000_000_000, 3: 1_795_000_000_001})
    expected = json.loads(golden("control_records.json"))
    assert [value.decode(), tick.decode()] == [json.dumps(part, separators=(",", ":")) for part in expected]
    assert [*headers, *tick_headers] == [
        ("format", b"1"),
        ("kind", b"control"),
        ("format", b"1"),
        ("kind", b"tick"),
    ]


def test_partition_of_an_organisation() -> None:
    """crc32 of the name, modulo the count: any client and any language must find the same."""
    assert [org_partition(name, 4) for name in ("acme", "org-ember", "", "größe")] == [2, 2, 0, 1]
    assert org_partition("acme", 12) == 2
