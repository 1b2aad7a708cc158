"""The embedded broker, and set-up on it: topics as they should be, fixed counts, data kept when the port changes."""

import asyncio
import json
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from tollmeter.admin import setup as provision
from tollmeter.broker.layout import Layout, ProvisionError, read_layout
from tollmeter.embedded import ports
from tollmeter.embedded.stack import Stack
from tollmeter.schemas.topics import DLQ, EVENTS, LAYOUT_KEY, POLICIES, TOPICS
from tollmeter.settings import Settings

pytestmark = pytest.mark.stack


async def configuration(settings: Settings, topic: str) -> dict[str, str]:
    admin = AIOKafkaAdminClient(**settings.kafka_options())
    try:
        await admin.start()
        answers = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, settings.topic(topic))])
        return {entry[0]: entry[1] for entry in answers[0].resources[0][4]}
    finally:
        await admin.close()


async def send(settings: Settings, topic: str, value: bytes, key: bytes | None = None, partition: int = 0) -> None:
    producer = AIOKafkaProducer(**settings.kafka_options(), acks="all", enable_idempotence=True)
    try:
        await producer.start()
        await producer.send_and_wait(settings.topic(topic), value, key=key, partition=partition)
    finally:
        await producer.stop()


async def first(settings: Settings, topic: str) -> bytes:
    at = TopicPartition(settings.topic(topic), 0)
    consumer = AIOKafkaConsumer(**settings.kafka_options(), enable_auto_commit=False)
    try:
        await consumer.start()
        consumer.assign([at])
        await consumer.seek_to_beginning(at)
        return (await asyncio.wait_for(consumer.getone(at), 20)).value
    finally:
        await consumer.stop()


def test_topics_are_made_as_described(line_settings: Settings) -> None:
    events = asyncio.run(configuration(line_settings, EVENTS))
    assert events["message.timestamp.type"] == "LogAppendTime"
    assert events["retention.ms"] == str(7 * 86_400_000)
    assert events["cleanup.policy"] == "delete"
    assert asyncio.run(configuration(line_settings, POLICIES))["cleanup.policy"] == "compact"
    assert asyncio.run(configuration(line_settings, DLQ))["max.message.bytes"] == "1100000"


def test_set_up_again_does_nothing(line_settings: Settings) -> None:
    assert provision.apply(line_settings) == []
    steps = [step for step in provision.plan(line_settings) if step.kind not in ("acl", "grant")]
    assert [step.kind for step in steps] == ["topic"] * len(TOPICS) + ["layout"]
    assert all(step.done for step in steps)


def test_a_plan_changes_nothing(stack: Stack, tmp_path: Path) -> None:
    fresh = {
        "topic_prefix": f"{tmp_path.name}.",
        "clickhouse_database": "db_" + "".join(filter(str.isalnum, tmp_path.name)),
    }
    settings = stack.settings.model_copy(update=fresh)
    before = provision.plan(settings)
    assert not any(step.done for step in before)
    assert {step.kind for step in before} == {"topic", "layout", "migration", "acl", "grant"}
    assert all(step.statement for step in before if step.kind != "layout")
    assert provision.plan(settings) == before


def test_the_layout_is_read_back(line_settings: Settings) -> None:
    other_settings = line_settings.model_copy(update={"partitions_events": 9})  # a worker does not care
    assert asyncio.run(read_layout(other_settings)) == Layout(events=4, priced=4)


def test_other_counts_are_refused(line_settings: Settings) -> None:
    with pytest.raises(ProvisionError, match="fixed at set-up"):
        provision.apply(line_settings.model_copy(update={"partitions_priced": 5}))


def test_no_layout_is_one_clear_line(line_settings: Settings) -> None:
    with pytest.raises(ProvisionError, match="run `tollmeter setup`"):
        asyncio.run(read_layout(line_settings.model_copy(update={"topic_prefix": "never."})))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (json.dumps({"events": 4, "priced": 4, "hash": "md5"}).encode(), "hash 'md5'"),
        (json.dumps({"events": 5, "priced": 4, "hash": "crc32-1"}).encode(), "has 4 partitions"),
        (b"{", "unreadable"),
    ],
    ids=["hash", "counts", "garbage"],
)
def test_a_layout_that_contradicts(line_settings: Settings, value: bytes, text: str) -> None:
    asyncio.run(send(line_settings, POLICIES, value, key=LAYOUT_KEY))
    with pytest.raises(ProvisionError, match=text):
        asyncio.run(read_layout(line_settings))


def test_an_unreachable_cluster_is_one_line_and_exit_code_2(line_settings: Settings, tmp_path: Path) -> None:
    for name, value in (("KAFKA", "127.0.0.1:9"), ("CLICKHOUSE", "http://127.0.0.1:9")):
        environment = {
            "TOLLMETER_DATA_DIR": str(tmp_path / "none"),
            "TOLLMETER_KAFKA": line_settings.kafka,
            "TOLLMETER_TOPIC_PREFIX": line_settings.topic_prefix,
            f"TOLLMETER_{name}": value,
        }
        command = [sys.executable, "-m", "tollmeter", "setup"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 2, done.stderr
        assert len(done.stderr.splitlines()) == 1, done.stderr
        assert "127.0.0.1:9" in done.stderr


def test_set_up_by_command(stack: Stack, line_settings: Settings, tmp_path: Path) -> None:
    environment = {
        "TOLLMETER_DATA_DIR": str(stack.data_dir),  # the addresses come from its stack.json
        "TOLLMETER_TOPIC_PREFIX": line_settings.topic_prefix,
        "TOLLMETER_CLICKHOUSE_DATABASE": line_settings.clickhouse_database,
    }
    command = [sys.executable, "-m", "tollmeter", "setup", "--dry-run", "--json"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    steps = json.loads(done.stdout)
    assert {step["done"] for step in steps if step["kind"] in ("topic", "layout", "migration")} == {True}
    assert steps[0]["name"] == line_settings.topic(EVENTS)


def test_records_survive_a_kill(stack: Stack, line_settings: Settings, eventually: Callable[..., Any]) -> None:
    asyncio.run(send(line_settings, EVENTS, b"kept"))
    stack.kill("broker", signal.SIGKILL, restart=False)
    stack.resume("broker")
    assert eventually(lambda: asyncio.run(first(line_settings, EVENTS)), timeout=60) == b"kept"


def test_ports_taken_between_choice_and_start_and_another_one_later(tmp_path: Path) -> None:
    """The first start evades to others; the second one, at a port that is asked for, has the data of the first."""
    wish = Settings(kafka="127.0.0.1:0", clickhouse="http://127.0.0.1:0")
    with ExitStack() as exit_stack:
        taken: list[int] = []

        def note(line: str) -> None:
            if line.startswith("starting the broker") and not taken:  # said after the choice, before the start
                for found in re.findall(r"127\.0\.0\.1:(\d+)", line):
                    exit_stack.enter_context(ports.listener(int(found)))
                    taken.append(int(found))

        with Stack(tmp_path, workers=(), settings=wish, note=note) as own:
            assert len(taken) == 2
            first_at = own.settings.kafka
            assert not {int(first_at[-5:].strip(":")), int(own.settings.clickhouse[-5:].strip(":"))} & {*taken}
            assert len(provision.apply(own.settings)) > len(TOPICS)
            asyncio.run(send(own.settings, EVENTS, b"kept"))
    [another] = ports.choose([0])
    with Stack(tmp_path, workers=(), settings=wish, kafka_port=another) as own:
        assert provision.apply(own.settings) == []
        assert own.settings.kafka == f"127.0.0.1:{another}" != first_at
        assert asyncio.run(first(own.settings, EVENTS)) == b"kept"
