"""Whatever kind of record lies in whatever topic of a running line: neighbours flow, and somebody is told of it.

Nothing is deleted by hand. What stands on purpose, one partition in front of an unknown format, goes on when a person
says so.
"""

import asyncio
import json
import random
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError
from click.testing import CliRunner

from tests.forkserver import ForkServer
from tests.usage_rows import avro, fields
from tests.workers import Worker, Workers
from tollmeter.cli.dlq import dlq
from tollmeter.schemas import topics
from tollmeter.schemas.record import Headers
from tollmeter.settings import Settings
from tollmeter.sinks.clickhouse.client import ClickHouse, connect

pytestmark = [pytest.mark.stack, pytest.mark.timeout(600)]
Eventually = Callable[..., Any]
Kind = tuple[str, bytes | None, bytes | None, Headers]
"""Compression, key, value, headers."""

JUNK = random.Random(7).randbytes(600_000)
BOMB = b" " * 60_000_000
FORGED_CONTROL: Headers = [("format", b"1"), ("kind", b"control")]
ROWS: Headers = [("format", b"1"), ("kind", b"rows"), ("rows", b"1"), ("sources", b"[[0,0,0,1,0,1]]")]

KINDS: dict[str, Kind] = {
    "large": ("", b"k", JUNK, []),
    "bomb, zstd": ("zstd", b"k", BOMB, []),
    "bomb, gzip": ("gzip", b"k", BOMB, []),
    "bomb without a key": ("zstd", None, BOMB, []),
    "large key": ("", JUNK, b"x", []),
    "large header": ("", b"k", b"x", [("h", JUNK)]),
    "many headers": ("", b"k", b"x", [(f"h{number}", b"") for number in range(5_000)]),
    "deep JSON": ("", b"k", b'{"a":' * 20_000, []),
    "JSON that is no object": ("", b"k", b"[1]", []),
    "no value": ("", b"k", None, []),
    "empty": ("", None, b"", []),
    "forged control": ("", b"policy:x/org/", b'{"body":{"kind":"policy_set","policy":{}}}', FORGED_CONTROL),
    "forged rows": ("", None, b"ARROW1\0\0" + JUNK[:500], [*ROWS, ("price_book", b"x"), ("boot", b"x")]),
    "forged rows, cut": ("", None, b"\xff\xff\xff\xff\x40\x01\0\0" + JUNK[:300], ROWS),
    "forged correction": ("", None, b"{}", [("format", b"1"), ("kind", b"correction"), ("correction", b"{}")]),
    "forged repair": ("", None, b"{}", [("format", b"1"), ("kind", b"repair"), ("repair", b"{}")]),
    "forged tick": ("", None, b'{"clocks":{"99":1}}', [("format", b"1"), ("kind", b"tick")]),
    "forged letter": ("", None, b"x", [("reason", b"x"), ("source_topic", b"y"), ("source_partition", b"-")]),
    "old format": ("", None, b"x", [("format", b"-4"), ("kind", b"rows")]),
}
TOLD_AS = {
    topics.EVENTS: {"dead_letter"},
    topics.PRICED: {"dead_letter"},
    topics.ALERTS: {"dead_letter"},
    topics.PRICES: {"dead_letter"},
    topics.REGISTRY: {"dead_letter"},
    topics.DLQ: {"foreign_record"},
    topics.POLICIES: {"foreign_record"},
    topics.SPEND: {"foreign_record"},
    topics.NOTICES: {"foreign_record"},
}
"""The kinds of alert that tell of a foreign record, by its topic."""


@pytest.fixture(scope="module")
def alive(
    stack: Any, databases: Any, forkserver: ForkServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Any]:
    """A running line for all tests of this module: the same one has to bear all of it."""
    from tollmeter.admin import setup as provision

    folder = tmp_path_factory.mktemp("hostile")
    settings: Settings = stack.settings.model_copy(
        update={
            "topic_prefix": "hostile.",
            "group_prefix": "hostile",
            "clickhouse_database": databases.take(),
            "data_dir": folder / "data",
        }
    )
    provision.apply(settings)
    workers = Workers(forkserver, settings, folder)

    try:
        running = workers.ready("price", "ledger", "watch")
        yield settings, running
    finally:
        workers.close()
        databases.give_back(settings.clickhouse_database)


async def write(line: Settings, topic: str, kind: Kind, *, partition: int = 0, aborted: bool = False) -> int:
    """Send one record; -1 when the broker refuses it: for its size, or without a key in a compacted topic."""
    codec, key, value, headers = kind
    options: dict[str, Any] = {"transactional_id": f"tx-{random.random()}"} if aborted else {}
    producer = AIOKafkaProducer(
        **line.kafka_options(),
        **options,
        compression_type=codec or None,
        max_request_size=1 << 30,
        max_batch_size=1 << 30,
    )
    await producer.start()
    try:
        if aborted:
            await producer.begin_transaction()
        sent = None
        with suppress(KafkaError):
            sent = await producer.send_and_wait(line.topic(topic), value, key=key, partition=partition, headers=headers)
        if aborted:
            await producer.abort_transaction()
        return -1 if sent is None else int(sent.offset)
    finally:
        await producer.stop()


NUMBERS = iter(range(1, 1_000_000))


def neighbours_flow(line: Settings, client: ClickHouse, eventually: Eventually, partitions: Any = range(4)) -> None:
    """An event in each source partition, of organisations in each target, reaches ledger and windows."""
    now_us = time.time_ns() // 1_000
    events = [fields(next(NUMBERS), org_id=f"flow-{next(NUMBERS)}", occurred_at=now_us) for _ in range(12)]
    events = [event for event in events if topics.org_partition(event["org_id"], 4) in partitions]
    assert events

    async def send() -> None:
        async with AIOKafkaProducer(**line.kafka_options()) as producer:
            for number, event in enumerate(events):
                await producer.send_and_wait(line.topic(topics.EVENTS), avro(event), partition=number % 4)

    asyncio.run(send())
    orgs = {event["org_id"] for event in events}

    def stored(table: str, condition: str) -> bool:
        rows = client.query(f"SELECT DISTINCT org_id FROM {table} FINAL WHERE {condition}")
        return orgs <= {row["org_id"] for row in rows}

    eventually(lambda: stored("usage_events", "1"), timeout=60)
    eventually(lambda: stored("usage_windows", "scope = 'org'"), timeout=60)


def told(client: ClickHouse, topic: str) -> set[str]:
    """Return the kinds of alerts about records of a topic."""
    rows = client.query(
        "SELECT DISTINCT JSONExtractString(data, 'kind') AS kind, JSONExtractString(data, 'topic') AS topic "
        "FROM (SELECT JSONExtractRaw(event, 'data') AS data FROM alerts FINAL)"
    )
    return {row["kind"] for row in rows if row["topic"] == topic}


@pytest.mark.parametrize("topic", TOLD_AS)
def test_every_kind_in_a_topic(alive: tuple[Settings, list[Worker]], eventually: Eventually, topic: str) -> None:
    line, running = alive
    client = connect(line)
    written = [asyncio.run(write(line, topic, kind)) for kind in KINDS.values()]
    assert len([offset for offset in written if offset >= 0]) >= 4
    asyncio.run(write(line, topic, ("", b"k", b"never", []), aborted=True))
    neighbours_flow(line, client, eventually)
    eventually(lambda: told(client, topic) >= TOLD_AS[topic], timeout=60)
    for worker in running:
        assert worker.process.poll() is None, worker.text[-2_000:]
        assert worker.ask("/readyz")[0] == 200, worker.ask("/readyz")[1]
    letters = run(line, "list", "--json")
    assert letters.exit_code == 0, letters.output


def run(line: Settings, *arguments: str) -> Any:
    return CliRunner().invoke(dlq, arguments, obj=line)


def test_an_unknown_format_stops_its_partition_alone_until_a_person_passes_over_it(
    alive: tuple[Settings, list[Worker]], forkserver: ForkServer, eventually: Eventually, tmp_path: Any
) -> None:
    line, running = alive
    client = connect(line)
    unknown: Kind = ("", None, b"from another world", [("format", b"999"), ("kind", b"rows")])
    offset = asyncio.run(write(line, topics.PRICED, unknown, partition=1))
    waiting = fields(
        next(NUMBERS), org_id=next(o for o in map("w{}".format, range(99)) if topics.org_partition(o, 4) == 1)
    )

    async def late() -> None:
        async with AIOKafkaProducer(**line.kafka_options()) as producer:
            await producer.send_and_wait(line.topic(topics.EVENTS), avro(waiting), partition=0)

    asyncio.run(late())
    neighbours_flow(line, client, eventually, partitions=(0, 2, 3))
    alerts = "SELECT JSONExtractString(event, 'data', 'text') AS text FROM alerts FINAL WHERE kind = 'paused'"
    texts = eventually(lambda: len(found := client.query(alerts)) >= 2 and found, timeout=60)
    assert {row["text"].split()[0] for row in texts} == {"ledger", "watch"}
    assert all(f"offset {offset}" in row["text"] for row in texts)

    readable = run(line, "pass", "1/0", "--reason", "no", "--json")
    assert readable.exit_code == 2
    assert "stops nobody" in readable.output
    assert run(line, "pass", "1/999999", "--reason", "no").exit_code == 2
    assert run(line, "pass", f"9/{offset}", "--reason", "no").exit_code == 2
    assert run(line, "pass", f"1/{offset}").exit_code == 2
    done = run(line, "pass", f"1/{offset}", "--reason", "a test of ours", "--by", "ann", "--json")
    assert done.exit_code == 0, done.output
    (entry,) = json.loads(run(line, "passed", "--json").output)
    assert (entry["partition"], entry["offset"], entry["by"], entry["reason"]) == (1, offset, "ann", "a test of ours")
    letters = json.loads(run(line, "list", "--reason", "passed_over", "--json").output)
    assert [letter["id"] for letter in letters] == [f"{line.topic(topics.PRICED)}/1/{offset}"]

    more = Workers(forkserver, line, tmp_path)
    try:  # those that stood end in order, as what keeps them alive starts them again
        for worker in running[1:]:
            eventually(lambda: worker.process.poll() is not None, timeout=120)  # noqa: B023
            assert worker.process.poll() == 0, worker.text[-2_000:]
        more.ready("ledger", "watch")
        neighbours_flow(line, client, eventually)
        ids = "SELECT 1 FROM usage_windows FINAL WHERE scope = 'org' AND org_id = {o:String}"
        eventually(lambda: client.query(ids, {"o": waiting["org_id"]}), timeout=60)
    finally:
        more.close()
