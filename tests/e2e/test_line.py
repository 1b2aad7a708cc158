"""Records to ledger rows under kill -9, two workers a stage, duplicates and poison: the sums are exact."""

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer

from tests.usage_rows import as_json, avro, cloudevent, confluent, fields
from tests.workers import Workers, committed, read
from tollmeter.embedded.environment import settings_environment
from tollmeter.embedded.stack import Stack
from tollmeter.schemas import topics
from tollmeter.settings import Settings
from tollmeter.sinks.clickhouse.client import ClickHouse, connect

pytestmark = pytest.mark.stack
Eventually = Callable[..., Any]

POISON = (b"garbage", b"", b"{}", avro(fields(1))[:-3], avro(fields(2)) + b"x", as_json(fields(3, input_tokens=-1)))


@pytest.fixture
def line(line_settings: Settings) -> Settings:
    return line_settings.model_copy(update={"session_timeout_s": 6.0, "price_batch": 3_000, "ledger_block_rows": 4_000})


async def _send(line: Settings, values: Sequence[bytes], rng: random.Random) -> list[tuple[int, int]]:
    producer = AIOKafkaProducer(**line.kafka_options(), linger_ms=20)
    await producer.start()
    try:
        topic = line.topic(topics.EVENTS)
        sent = [await producer.send(topic, value, partition=rng.randrange(4)) for value in values]
        return [(meta.partition, meta.offset) for meta in await asyncio.gather(*sent)]
    finally:
        await producer.stop()


def send(line: Settings, values: Sequence[bytes], rng: random.Random) -> list[tuple[int, int]]:
    """Produce values to random partitions; return partition and offset of each."""
    return asyncio.run(_send(line, values, rng))


def totals(client: ClickHouse) -> dict[str, int]:
    row = client.query(
        "SELECT count() AS calls, uniqExact(event_id) AS ids, sum(input_tokens) AS input, "
        "sum(output_tokens) AS output, sum(cost_nano) AS cost, countIf(cost_nano IS NULL) AS unpriced "
        "FROM usage_events FINAL"
    )[0]
    return {name: int(value or 0) for name, value in row.items()}


def expected_totals(events: Sequence[dict[str, Any]]) -> dict[str, int]:
    """Added up in plain Python: gpt-4o costs 2,500 nano-USD a token in and 10,000 a token out."""
    read, written = (sum(event[name] for event in events) for name in ("input_tokens", "output_tokens"))
    return {
        "calls": len(events),
        "ids": len(events),
        "input": read,
        "output": written,
        "cost": 2_500 * read + 10_000 * written,
        "unpriced": 0,
    }


def covered(client: ClickHouse) -> int:
    """Count the source records that coverage reaches without a gap, over all source partitions."""
    rows = client.query(
        "SELECT DISTINCT source_partition AS source, first_offset AS first, last_offset AS last "
        "FROM ledger_coverage FINAL ORDER BY source, first, last"
    )
    reach: dict[int, int] = {}
    for row in rows:
        at = reach.get(row["source"], 0)
        if row["first"] <= at:
            reach[row["source"]] = max(at, row["last"] + 1)
    return sum(reach.values())


@pytest.mark.parametrize("count", [6_000, pytest.param(24_000, marks=pytest.mark.nightly)])
def test_kill_9_of_each_worker_loses_and_doubles_nothing(
    line: Settings, workers: Workers, eventually: Eventually, count: int
) -> None:
    rng = random.Random(7)
    events = [fields(number) for number in range(count)]
    quarter, resends = count // 4, count // 80
    encodings = (avro, avro, confluent, as_json, cloudevent)
    poisoned: list[tuple[int, int, bytes]] = []
    names = ("price-1", "price-2", "ledger-1", "ledger-2")
    running = dict(zip(names, workers.ready(*(name[:-2] for name in names)), strict=True))
    sent = 0
    for number, victim in enumerate(("price-1", "ledger-1", "price-2", "ledger-2")):
        piece = [rng.choice(encodings)(event) for event in events[number * quarter : (number + 1) * quarter]]
        resent = rng.sample(piece, resends)  # a producer that lost the answers
        bad = [rng.choice(POISON) for _ in range(40)]
        values = [*piece, *resent, *bad]
        order = rng.sample(range(len(values)), len(values))
        places = send(line, [values[at] for at in order], rng)
        poisoned += [
            (*place, values[at]) for at, place in zip(order, places, strict=True) if at >= len(piece) + resends
        ]
        sent += len(values)
        time.sleep(rng.random())  # kill at some point of the work, not at a chosen one
        running[victim].process.send_signal(signal.SIGKILL)
        running[victim].process.wait()
        (running[victim],) = workers.ready(victim[:-2])
    client = connect(line)
    wanted = expected_totals(events)
    eventually(lambda: totals(client) == wanted, timeout=60)
    letters = read(line, topics.DLQ)
    found = {
        (int(h["source_partition"]), int(h["source_offset"]), record.value or b"")
        for record in letters
        for h in [dict(record.headers)]
    }
    assert found == {(partition, offset, value) for partition, offset, value in poisoned}
    assert all(record.partition == int(dict(record.headers)["source_partition"]) for record in letters)
    eventually(lambda: covered(client) == sent, timeout=20)
    # a clean stop commits what was done: nothing is left to read again
    for worker in running.values():
        worker.process.send_signal(signal.SIGTERM)
    assert [worker.process.wait(timeout=300) for worker in running.values()] == [0, 0, 0, 0]
    assert sum(committed(line, "price", topics.EVENTS).values()) == sent


def test_ledger_waits_for_clickhouse(line: Settings, workers: Workers, stack: Stack, eventually: Eventually) -> None:
    events = [fields(number) for number in range(3_000)]
    ledger = workers.ready("price", "ledger")[1].process
    send(line, [avro(event) for event in events[:1_000]], random.Random(1))
    client = connect(line)
    eventually(lambda: totals(client)["calls"] == 1_000, timeout=30)
    stack.kill("front", signal.SIGKILL, restart=False)
    try:
        send(line, [avro(event) for event in events[1_000:]], random.Random(2))
        eventually(lambda: sum(committed(line, "price", topics.EVENTS).values()) == 3_000, timeout=30)
        assert ledger.poll() is None
    finally:
        stack.resume("front")
    eventually(lambda: totals(client) == expected_totals(events), timeout=60)
    assert ledger.poll() is None


def test_worker_without_broker_says_so(line: Settings, tmp_path: Path) -> None:
    environment = {**os.environ, **settings_environment(line), "TOLLMETER_KAFKA": "127.0.0.1:1"}
    done = subprocess.run(
        [sys.executable, "-m", "tollmeter", "worker", "price"],
        env=environment,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 2
    assert b"127.0.0.1:1" in done.stderr
    assert b"Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_worker_without_topics_says_so(line: Settings) -> None:
    environment = {**os.environ, **settings_environment(line), "TOLLMETER_TOPIC_PREFIX": "nothing-here."}
    done = subprocess.run(
        [sys.executable, "-m", "tollmeter", "worker", "ledger"],
        env=environment,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 2
    assert b"tollmeter setup" in done.stderr
    assert b"Traceback" not in done.stderr
