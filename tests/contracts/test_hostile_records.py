"""Whatever an outsider writes into the source topic, nothing stands: neighbours flow, and each record is a letter."""

import asyncio
import json
import random
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer

from tests.usage_rows import avro, fields
from tests.workers import Workers
from tollmeter.admin.dead_letters import read_cases
from tollmeter.schemas import topics
from tollmeter.schemas.record import Headers
from tollmeter.settings import Settings
from tollmeter.sinks.clickhouse.client import connect

pytestmark = pytest.mark.stack
Eventually = Callable[..., Any]

BOMB_BYTES = 200_000_000
JUNK = random.Random(7).randbytes(900_000)


def hostile() -> list[tuple[str, bytes | None, bytes | None, Headers]]:
    """Compression, key, value, headers of records that are no events."""
    return [
        ("zstd", None, b" " * 5_000_000, []),
        ("gzip", None, b" " * 5_000_000, []),
        ("lz4", None, b" " * 5_000_000, []),
        ("snappy", None, b" " * 5_000_000, []),
        ("zstd", None, b" " * BOMB_BYTES, []),
        ("gzip", None, b" " * BOMB_BYTES, []),
        ("", JUNK, b"x", []),
        ("", None, JUNK, []),
        ("", JUNK[:450_000], JUNK[:450_000], []),
        ("zstd", b" " * 5_000_000, b"x", []),
        ("", None, b"x", [("h", JUNK)]),
        ("", None, b"x", [(f"h{number}", b"") for number in range(20_000)]),
        ("zstd", None, b"x", [("h" * 100_000, b" " * 5_000_000)]),
        ("", None, b"x", [("attempts", b"abc"), ("first_source", b"x")]),
        ("", None, b"x", [("tollmeter-attempts", b"3"), ("tollmeter-first-source", b"t.usage.events/0/0")]),
        ("", None, b"x", [("kind", b"control"), ("format", b"999")]),
        ("", b"key", None, []),
        ("", None, b"", []),
        ("", None, json.dumps({"event_id": "x" * 60_000}).encode(), []),
        ("", None, b"[" * 60_000, []),
        ("", None, b'{"a":' * 9_000, []),
        ("", None, b"\xc3\x01" + b"\xff" * 40, []),
    ]


async def _send(line: Settings) -> int:
    count = 0
    for number, (codec, key, value, headers) in enumerate(hostile()):
        producer = AIOKafkaProducer(
            **line.kafka_options(), compression_type=codec or None, max_request_size=1 << 30, max_batch_size=1 << 30
        )
        await producer.start()
        try:
            topic = line.topic(topics.EVENTS)
            await producer.send_and_wait(topic, value, key=key, partition=number % 2, headers=headers)
            good = avro(fields(number))
            await producer.send_and_wait(topic, good, partition=number % 2)
            await producer.send_and_wait(topic, avro(fields(1_000 + number)), partition=2 + number % 2)
        finally:
            await producer.stop()
        count += 1
    return count


async def _aborted(line: Settings) -> None:
    producer = AIOKafkaProducer(**line.kafka_options(), transactional_id=f"tx-{random.random()}")
    await producer.start()
    try:
        await producer.begin_transaction()
        await producer.send_and_wait(line.topic(topics.EVENTS), avro(fields(500)), partition=0)
        await producer.abort_transaction()
    finally:
        await producer.stop()


def peak_mb(process_id: int) -> int:
    status = Path(f"/proc/{process_id}/status").read_text(encoding="ascii")
    return int(status.split("VmHWM:")[1].split()[0]) // 1024


def test_nothing_stands_and_every_record_is_a_letter(
    line_settings: Settings, workers: Workers, eventually: Eventually
) -> None:
    price = workers("price")
    workers("ledger")
    count = asyncio.run(_send(line_settings))
    asyncio.run(_aborted(line_settings))
    client = connect(line_settings)
    wanted = {fields(number)["event_id"] for number in range(count)}
    wanted |= {fields(1_000 + number)["event_id"] for number in range(count)}

    def stored() -> set[str]:
        return {str(row["id"]) for row in client.query("SELECT event_id AS id FROM usage_events FINAL")}

    eventually(lambda: stored() == wanted, timeout=90)
    cases = eventually(lambda: len(found := asyncio.run(read_cases(line_settings))) == count and found, timeout=60)
    assert {case.letter.place.partition for case in cases} == {0, 1}
    reasons = [case.letter.reason for case in cases]
    assert reasons.count("not_unpacked") == 2
    assert {case.state for case in cases} <= {"waiting", "cut"}
    assert price.process.poll() is None
    assert peak_mb(price.process.pid) < 900, resource.getrusage(resource.RUSAGE_CHILDREN)
    assert fields(500)["event_id"] not in stored(), "a transaction that was aborted never happened"
