"""What PRICE and LEDGER promise at their borders, on the real broker and engine: ticks, refused rows, newer formats."""

import asyncio
import json
import random
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import polars as pl
import pytest
from aiokafka import AIOKafkaConsumer

from tests.exchange import dated
from tests.usage_rows import AT, avro, fields
from tests.workers import Workers, read, send
from tollmeter.schemas import topics
from tollmeter.schemas.control import PolicyDelete, Tick
from tollmeter.schemas.envelope import control_record, tick_record
from tollmeter.schemas.priced import FORMAT_VERSION, KIND_ROWS, KIND_TICK
from tollmeter.settings import Settings
from tollmeter.sinks.clickhouse.client import ClickHouse, connect
from tollmeter.streams.price.batch import price_batch
from tollmeter.streams.price.book.book import load
from tollmeter.streams.rules.records.encode import Block, blocks, encode_dicts

pytestmark = pytest.mark.stack
Eventually = Callable[..., Any]
BOOK = load(dated())


def priced(*numbers: int, **changed: pl.Expr) -> Block:
    """A record of usage.priced with these events; columns changed as an honest PRICE never would."""
    source = [
        SimpleNamespace(value=avro(fields(number)), partition=0, offset=number, timestamp=AT // 1000, headers=())
        for number in numbers
    ]
    priced = price_batch([source], BOOK)
    rows = priced.rows.with_columns(**changed)
    (block,) = blocks(encode_dicts(rows), priced.sources, BOOK.id, "test")
    return block


def stored(client: ClickHouse) -> list[str]:
    return [str(row["id"]) for row in client.query("SELECT event_id AS id FROM usage_events FINAL ORDER BY event_time")]


def ids(*numbers: int) -> list[str]:
    return [fields(number)["event_id"] for number in numbers]


def test_ticks_follow_the_rows_and_cover_every_partition(
    line_settings: Settings, workers: Workers, eventually: Eventually
) -> None:
    before_ms = int(time.time() * 1000)
    # partition 3 ends with the mark of a transaction, which is no record: it must count as read all the same
    send(line_settings, topics.EVENTS, [(3, avro(fields(3)), [])], transaction=f"tx-{random.random()}")
    send(line_settings, topics.EVENTS, [(number, avro(fields(number)), []) for number in range(3)])
    workers("price")

    def clocks() -> dict[int, dict[int, int]]:
        newest: dict[int, dict[int, int]] = {}
        for record in read(line_settings, topics.PRICED):
            if dict(record.headers)["kind"] == KIND_TICK:
                newest.setdefault(record.partition, {}).update(Tick.model_validate_json(record.value).clocks)
        return newest

    eventually(lambda: all(set(clocks().get(target, {})) == {0, 1, 2, 3} for target in range(4)), timeout=40)
    assert min(at for seen in clocks().values() for at in seen.values()) >= before_ms
    rows = [record for record in read(line_settings, topics.PRICED) if dict(record.headers)["kind"] == KIND_ROWS]
    covered = {source[0]: source[2] for record in rows for source in json.loads(dict(record.headers)["sources"])}
    assert covered == {0: 0, 1: 0, 2: 0, 3: 0}
    eventually(lambda: read_book(line_settings), timeout=10)


def read_book(line: Settings) -> bool:
    """The price book in use is in usage.prices."""

    async def newest() -> bool:
        consumer = AIOKafkaConsumer(line.topic(topics.PRICES), **line.kafka_options(), auto_offset_reset="earliest")
        await consumer.start()
        try:
            records = await consumer.getmany(timeout_ms=3_000)
            return any(record.key == BOOK.id.encode() for found in records.values() for record in found)
        finally:
            await consumer.stop()

    return asyncio.run(newest())


def test_refused_row_becomes_a_dead_letter_and_its_neighbours_are_stored(
    line_settings: Settings, workers: Workers, eventually: Eventually
) -> None:
    bad = pl.when(pl.col("src_offset") == 5).then(pl.lit("no uuid at all")).otherwise(pl.col("event_id"))
    good, mixed = priced(1, 2, 3), priced(4, 5, 6, 7, event_id=bad)
    control, tick = control_record(PolicyDelete(policy_id="acme/org//USD")), tick_record({0: AT // 1000})
    send(
        line_settings,
        topics.PRICED,
        [(0, good.value, good.headers), (0, *control), (1, mixed.value, mixed.headers), (0, *tick)],
    )
    send(line_settings, topics.PRICED, [(2, b"not arrow", good.headers), (2, b"no headers", [])])
    worker = workers("ledger")
    client = connect(line_settings)
    eventually(lambda: stored(client) == ids(1, 2, 3, 4, 6, 7), timeout=40)
    letters = eventually(lambda: len(found := read(line_settings, topics.DLQ)) == 3 and found, timeout=20)
    reasons = {(dict(letter.headers)["reason"], dict(letter.headers)["source_offset"]) for letter in letters}
    assert reasons == {(b"rejected", b"5"), (b"bad_priced_record", b"0"), (b"bad_priced_record", b"1")}
    assert {dict(letter.headers)["stage"] for letter in letters} == {b"ledger"}
    assert worker.process.poll() is None
    coverage = "SELECT sum(records) AS records, sum(rows) AS rows FROM ledger_coverage FINAL"
    eventually(lambda: client.query(coverage) == [{"records": 7, "rows": 7}], timeout=20)


def test_newer_format_stops_its_partition_alone(
    line_settings: Settings, workers: Workers, eventually: Eventually
) -> None:
    known, later, other = priced(1), priced(2), priced(3)
    newer = [(name, b"%d" % (FORMAT_VERSION + 1) if name == "format" else value) for name, value in later.headers]
    send(line_settings, topics.PRICED, [(0, known.value, known.headers), (0, later.value, newer)])
    send(line_settings, topics.PRICED, [(1, other.value, other.headers)])
    worker = workers("ledger")
    client = connect(line_settings)
    eventually(lambda: stored(client) == ids(1, 3), timeout=40)
    eventually(lambda: "upgrade this worker" in worker.log.read_text(encoding="utf-8"), timeout=10)
    more = priced(4)
    send(line_settings, topics.PRICED, [(1, more.value, more.headers)])
    eventually(lambda: stored(client) == ids(1, 3, 4), timeout=20)
    assert worker.process.poll() is None
    assert worker.log.read_text(encoding="utf-8").count("upgrade this worker") == 1


def test_alerts_and_rules_land_in_their_tables(
    line_settings: Settings, workers: Workers, eventually: Eventually
) -> None:
    event = {
        "specversion": "1.0",
        "id": "a1",
        "source": "tollmeter/watch",
        "type": "t",
        "time": "2026-11-22T10:00:00Z",
        "data": {
            "kind": "budget",
            "severity": "warning",
            "org_id": "acme",
            "scope": "org",
            "name": "",
            "period": "2026-11",
            "text": "80 %",
        },
    }
    wire = json.dumps(event).encode()
    send(line_settings, topics.ALERTS, [(0, wire, []), (0, wire, [])])  # at least once: sent twice
    workers("price")
    workers("ledger")
    client = connect(line_settings)
    eventually(lambda: client.query("SELECT id, org_id FROM alerts FINAL") == [{"id": "a1", "org_id": "acme"}], 40)
    rules = "SELECT count() AS n FROM price_rules FINAL WHERE price_book = {book:String}"
    eventually(lambda: client.query(rules, {"book": BOOK.id})[0]["n"] > 3_000, timeout=30)
