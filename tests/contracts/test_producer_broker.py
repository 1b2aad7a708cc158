"""The producer against a real broker: everything recorded arrives once, in the order of recording."""

import asyncio
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition

from tests.gate import Gate
from tollmeter.broker.client import kafka_admin
from tollmeter.embedded.environment import settings_environment
from tollmeter.producers.client.client import UsageProducer
from tollmeter.producers.client.spool import target_name, waiting
from tollmeter.schemas import codec, topics
from tollmeter.settings import Settings

pytestmark = pytest.mark.stack

CALL = {"provider": "openai", "model_sent": "gpt-4o", "org_id": "acme", "status": "OK"}
Eventually = Callable[..., Any]


async def _read(settings: Settings) -> list[bytes]:
    topic = settings.topic(topics.EVENTS)
    consumer = AIOKafkaConsumer(**settings.kafka_options(), enable_auto_commit=False, auto_offset_reset="earliest")
    await consumer.start()
    try:
        parts = [TopicPartition(topic, number) for number in range(settings.partitions_events)]
        consumer.assign(parts)
        ends = await consumer.end_offsets(parts)
        values: list[tuple[int, int, int, bytes]] = []
        while any([await consumer.position(part) < ends[part] for part in parts]):
            for part, records in (await consumer.getmany(timeout_ms=200)).items():
                values += [(record.timestamp, part.partition, record.offset, record.value) for record in records]
        return [value for *_, value in sorted(values)]
    finally:
        await consumer.stop()


def arrived(settings: Settings) -> list[dict[str, Any]]:
    """Return every event in the topic, decoded."""
    header = codec.SINGLE_OBJECT_HEADER
    values = asyncio.run(_read(settings))
    assert all(value.startswith(header) for value in values)
    return [codec.decode_body(value[len(header) :]) for value in values]


@pytest.fixture
def producer_for(line_settings: Settings, tmp_path: Path) -> Callable[..., UsageProducer]:
    def make(**how: Any) -> UsageProducer:
        return UsageProducer(service="shop", settings=line_settings, spool_dir=tmp_path / "spool", **how)

    return make


def test_all_arrive_once_from_many_threads(line_settings: Settings, producer_for: Callable[..., UsageProducer]) -> None:
    ids: list[str] = []
    with producer_for(environment="test") as producer:

        def work(user: int) -> None:
            ids.extend(producer.record(**CALL, user_id=f"u{user}", input_tokens=number) for number in range(250))

        threads = [threading.Thread(target=work, args=(user,)) for user in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert producer.flush(20)
        counters = producer.counters
    assert (counters.accepted, counters.acknowledged, counters.queued, counters.dropped) == (2_000, 2_000, 0, 0)
    events = arrived(line_settings)
    assert sorted(event["event_id"] for event in events) == sorted(ids)
    assert {event["environment"] for event in events} == {"test"}
    assert sum(event["input_tokens"] for event in events) == 8 * sum(range(250))


def test_from_async_code(line_settings: Settings, producer_for: Callable[..., UsageProducer]) -> None:
    async def call() -> str:
        async with producer_for() as producer:
            event_id = producer.record(**CALL, input_tokens=5)
            assert await producer.aflush(20)
            return event_id

    assert [event_id := asyncio.run(call())] == [event["event_id"] for event in arrived(line_settings)]
    assert event_id


def test_a_forked_child_sends_its_own_and_not_its_parents(
    line_settings: Settings, producer_for: Callable[..., UsageProducer]
) -> None:
    with producer_for() as producer:
        ids = [producer.record(**CALL, user_id="parent", input_tokens=number) for number in range(50)]
        read_end, write_end = os.pipe()
        child = os.fork()
        if child == 0:
            outcome = b"broken"
            try:
                made = [producer.record(**CALL, user_id="child", input_tokens=number) for number in range(50)]
                if producer.flush(20) and producer.counters.acknowledged == 50:
                    outcome = " ".join(made).encode()
                producer.close()
            finally:
                os.write(write_end, outcome)
                os._exit(0)
        os.close(write_end)
        with os.fdopen(read_end) as pipe:
            of_child = pipe.read().split()
        os.waitpid(child, 0)
        ids += [producer.record(**CALL, user_id="parent", input_tokens=number) for number in range(50)]
        assert producer.flush(20)
        assert producer.counters.acknowledged == 100
    assert len(of_child) == 50
    assert sorted(event["event_id"] for event in arrived(line_settings)) == sorted(ids + of_child)


PREFORK = """
import os, sys
from tollmeter import UsageProducer
producer = UsageProducer(service="shop", spool_dir={folder!r})
producer.record(provider="openai", model_sent="gpt-4o", user_id="parent")
assert producer.flush(20)
children = []
for number in range(2):
    child = os.fork()
    if child == 0:
        producer.record(provider="openai", model_sent="gpt-4o", user_id=f"child {{number}}")
        sys.exit(0)  # no flush: the exit of a process sends what is left
    children.append(child)
for child in children:
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
producer.record(provider="openai", model_sent="gpt-4o", user_id="parent")
"""


def test_prefork_workers_exit_without_a_word(line_settings: Settings, tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TOLLMETER_")}
    code = PREFORK.format(folder=str(tmp_path / "spool"))
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env=environment | settings_environment(line_settings),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    users = sorted(event["user_id"] for event in arrived(line_settings))
    assert users == ["child 0", "child 1", "parent", "parent"]


def test_a_broker_that_comes_later_gets_the_spool_in_order(
    line_settings: Settings, tmp_path: Path, eventually: Eventually, caplog: pytest.LogCaptureFixture
) -> None:
    with Gate(line_settings.kafka) as gate, caplog.at_level(logging.WARNING, "tollmeter.producer"):
        settings = line_settings.model_copy(update={"kafka": gate.address})
        producer = UsageProducer(service="shop", settings=settings, spool_dir=tmp_path / "spool")
        ids = [producer.record(**CALL, input_tokens=number) for number in range(300)]
        eventually(lambda: producer.counters.on_disk == 300)
        assert not producer.flush(0.2)
        ids += [producer.record(**CALL, input_tokens=number) for number in range(300, 500)]
        eventually(lambda: producer.counters.on_disk == 500)
        gate.open()
        assert producer.flush(30)
        counters = producer.counters
        producer.close()
    assert (counters.accepted, counters.acknowledged, counters.spooled, counters.on_disk) == (500, 500, 500, 0)
    events = arrived(line_settings)
    assert sorted(event["event_id"] for event in events) == ids, "exactly once; ids grow in the order of recording"
    assert [line.levelname for line in caplog.records if line.name == "tollmeter.producer"] == ["WARNING"] * 2
    assert list((tmp_path / "spool").iterdir()) == [], "an empty spool leaves no file"


def test_a_dead_process_leaves_its_spool_to_the_next(
    line_settings: Settings, tmp_path: Path, eventually: Eventually
) -> None:
    folder = tmp_path / "spool"
    with Gate(line_settings.kafka) as gate:
        settings = line_settings.model_copy(update={"kafka": gate.address})
        read_end, write_end = os.pipe()
        child = os.fork()
        if child == 0:
            producer = UsageProducer(service="shop", settings=settings, spool_dir=folder)
            made = [producer.record(**CALL, input_tokens=number) for number in range(40)]
            while producer.counters.on_disk < 40:
                time.sleep(0.01)
            os.write(write_end, " ".join(made).encode())
            os.kill(os.getpid(), signal.SIGKILL)
        os.close(write_end)
        with os.fdopen(read_end) as pipe:
            ids = pipe.read().split()
        os.waitpid(child, 0)
        assert len(ids) == 40
        gate.open()
        with UsageProducer(service="shop", settings=settings, spool_dir=folder) as producer:
            own = producer.record(**CALL)
            eventually(lambda: producer.counters.adopted == 40)
            assert producer.flush(20)
    assert sorted(event["event_id"] for event in arrived(line_settings)) == sorted([*ids, own])
    assert list(folder.iterdir()) == []


def test_a_broker_killed_in_between_costs_nothing_and_one_line(
    stack: Any,
    line_settings: Settings,
    producer_for: Callable[..., UsageProducer],
    eventually: Eventually,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING), producer_for() as producer:
        ids = [producer.record(**CALL, input_tokens=number) for number in range(100)]
        assert producer.flush(20)
        stack.kill("broker", signal.SIGKILL, restart=False)
        ids += [producer.record(**CALL, input_tokens=number) for number in range(100, 200)]
        eventually(lambda: producer.counters.on_disk == 100)
        stack.resume("broker")
        ids += [producer.record(**CALL, input_tokens=number) for number in range(200, 300)]
        assert producer.flush(60)
        assert producer.counters.acknowledged == 300
    away, back = [record.getMessage() for record in caplog.records]
    assert "is away" in away
    assert "is back" in back
    assert sorted({event["event_id"] for event in arrived(line_settings)}) == sorted(ids)


def test_another_broker_gets_nothing_of_ours(tmp_path: Path) -> None:
    assert target_name("a:1,b:2", "t") == target_name("b:2, a:1", "t")
    assert len({target_name("a:1", "t"), target_name("a:2", "t"), target_name("a:1", "u")}) == 3


FOREIGN = "foreign."


def test_a_broker_that_is_not_ours_gets_nothing(
    line_settings: Settings, tmp_path: Path, eventually: Eventually, caplog: pytest.LogCaptureFixture
) -> None:
    settings = line_settings.model_copy(update={"topic_prefix": FOREIGN})
    with (
        caplog.at_level(logging.WARNING),
        UsageProducer(service="shop", settings=settings, spool_dir=tmp_path / "spool") as producer,
    ):
        for _ in range(20):
            producer.record(**CALL)
        eventually(lambda: producer.counters.on_disk == 20)
        assert "not set up for tollmeter" in producer.problem
        assert not producer.flush(0.1)
    [line] = [record.getMessage() for record in caplog.records]
    for word in (settings.kafka, "usage events wait on disk", "TOLLMETER_KAFKA", "TOLLMETER_DATA_DIR"):
        assert word in line
    assert asyncio.run(_topics(settings)).isdisjoint({settings.topic(topic.name) for topic in topics.TOPICS})
    assert sum(waiting(tmp_path / "spool").values()) == 20


@pytest.mark.parametrize("arguments", [("send", "--model", "gpt-4o"), ("import", "-")])
def test_commands_write_nothing_to_a_broker_that_is_not_ours(
    line_settings: Settings, arguments: tuple[str, ...]
) -> None:
    settings = line_settings.model_copy(update={"topic_prefix": FOREIGN})
    bare = {name: value for name, value in os.environ.items() if not name.startswith("TOLLMETER_")}
    done = subprocess.run(
        [sys.executable, "-m", "tollmeter", *arguments],
        input='{"time": "2026-11-01T00:00:00Z", "model": "gpt-4o", "prompt_tokens": 1, "completion_tokens": 2}\n',
        env=bare | settings_environment(settings),
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert "not set up for tollmeter" in done.stderr
    assert asyncio.run(_topics(settings)).isdisjoint({settings.topic(topic.name) for topic in topics.TOPICS})


async def _topics(settings: Settings) -> set[str]:
    async with kafka_admin(settings) as admin:
        return set(await admin.list_topics())
