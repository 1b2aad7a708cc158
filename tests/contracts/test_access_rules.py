"""The rules of access that set-up makes, at a broker that enforces them: each role does its work, and no more."""

import asyncio
import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError, TopicAuthorizationFailedError
from pydantic import SecretStr

from tests.databases import Databases
from tests.forkserver import ForkServer
from tests.usage_rows import avro, fields
from tests.workers import Workers
from tollmeter.admin import setup as provision
from tollmeter.broker.access_rules import ALL, ROLES
from tollmeter.broker.client import kafka_admin
from tollmeter.embedded import jars, kafka, ports
from tollmeter.embedded.environment import bare_environment, settings_environment
from tollmeter.embedded.stack import Stack
from tollmeter.embedded.supervisor import Program, Supervisor
from tollmeter.schemas import topics
from tollmeter.settings import Settings
from tollmeter.sinks.clickhouse.client import connect

pytestmark = [pytest.mark.stack, pytest.mark.timeout(300)]
Eventually = Callable[..., Any]
ROOT, GROUP, WORD = "root", "acl", "pw-4711"
ORG = "acme"
POLICY = ("policy", "set", "--org", ORG, "--scope", "org", "--daily")
PRINCIPALS = [ROOT, *(f"{GROUP}-{role.name}" for role in ROLES), "stranger"]

ENFORCING = """
listeners=SASL_PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}
advertised.listeners=SASL_PLAINTEXT://127.0.0.1:{port}
listener.security.protocol.map=SASL_PLAINTEXT:SASL_PLAINTEXT,CONTROLLER:PLAINTEXT
inter.broker.listener.name=SASL_PLAINTEXT
sasl.enabled.mechanisms=PLAIN
sasl.mechanism.inter.broker.protocol=PLAIN
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:root;User:ANONYMOUS
listener.name.sasl_plaintext.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required \
username="root" password="{word}" {users};
"""


def as_user(settings: Settings, name: str) -> Settings:
    return settings.model_copy(update={"kafka_user": name})


def as_role(settings: Settings, role: str) -> Settings:
    return as_user(settings, f"{GROUP}-{role}")


@pytest.fixture(scope="module")
def line(stack: Stack, databases: Databases, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """A line on a broker of its own that asks for a password and enforces rules; set up with them."""
    folder = tmp_path_factory.mktemp("enforcing")
    port, controller_port = ports.choose([0, 0])
    command = kafka.prepare(jars.java(), jars.fetch(), folder, port, controller_port)
    users = " ".join(f'user_{name}="{WORD}"' for name in PRINCIPALS)
    with (folder / "server.properties").open("a", encoding="utf-8") as file:
        file.write(ENFORCING.format(port=port, controller_port=controller_port, users=users, word=WORD))
    settings = stack.settings.model_copy(
        update={
            "kafka": f"127.0.0.1:{port}",
            "kafka_security": "SASL_PLAINTEXT",
            "kafka_user": ROOT,
            "kafka_password": SecretStr(WORD),
            "group_prefix": GROUP,
            "topic_prefix": "acl.",
            "clickhouse_database": databases.take(),
            "data_dir": folder / "data",
        }
    )
    supervisor = Supervisor(lambda line: None)
    try:
        supervisor.start(Program("broker", command, bare_environment, folder / "broker.log"))
        deadline = time.monotonic() + 120
        while not reachable(port) or not asyncio.run(answers(settings)):
            assert time.monotonic() < deadline, (folder / "broker.log").read_text()[-2000:]
            time.sleep(0.2)
        provision.apply(settings)
        assert provision.grant_access(settings)
        yield settings
    finally:
        supervisor.close([["broker"]])
        databases.give_back(settings.clickhouse_database)


def reachable(port: int) -> bool:
    with closing(socket.socket()) as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


async def answers(settings: Settings) -> bool:
    try:
        async with kafka_admin(settings, 5_000):
            return True
    except (KafkaError, OSError):
        return False


async def may_write(settings: Settings, topic: str) -> bool:
    producer = AIOKafkaProducer(**settings.kafka_options(), request_timeout_ms=5_000, retry_backoff_ms=50)
    await producer.start()
    try:
        # a tombstone of a key that nobody has: it says nothing to whoever reads it
        await producer.send_and_wait(settings.topic(topic), None, key=b"nobody", partition=0)
    except TopicAuthorizationFailedError:
        return False
    finally:
        await producer.stop()
    return True


async def may_read(settings: Settings, topic: str) -> bool:
    """Tell whether a record of a topic that holds some comes; without Describe the broker does not even name it."""
    name = settings.topic(topic)
    consumer = AIOKafkaConsumer(**settings.kafka_options(), enable_auto_commit=False, auto_offset_reset="earliest")
    await consumer.start()
    try:
        consumer.assign([TopicPartition(name, 0)])
        while name not in consumer._client.cluster.unauthorized_topics:
            if await consumer.getmany(timeout_ms=100):
                return True
    except TopicAuthorizationFailedError:
        pass
    finally:
        await consumer.stop()
    return False


def work(line: Settings, role: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run a command as a role."""
    environment = settings_environment(as_role(line, role))
    command = [sys.executable, "-m", "tollmeter", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


async def send(line: Settings, values: Sequence[bytes]) -> None:
    async with AIOKafkaProducer(**line.kafka_options()) as producer:
        for value in values:
            await producer.send_and_wait(line.topic(topics.EVENTS), value, partition=0)


def test_each_role_does_its_work_by_its_own_rights_alone(
    line: Settings, forkserver: ForkServer, tmp_path: Path, eventually: Eventually
) -> None:
    workers = Workers(forkserver, line, tmp_path)
    try:
        for stage in ("price", "ledger", "watch"):
            workers(stage, as_role(line, stage))
        done = work(line, "admin", *POLICY, "0.001")
        assert done.returncode == 0, done.stderr
        event = fields(1) | {"org_id": ORG, "occurred_at": time.time_ns() // 1_000}
        asyncio.run(send(as_role(line, "producer"), [avro(event)]))
        client = connect(line)

        def rows() -> list[dict[str, Any]]:
            return client.query("SELECT event_id, cost_nano FROM usage_events FINAL")

        (row,) = eventually(rows, timeout=90)
        assert str(row["event_id"]) == event["event_id"]
        told = eventually(lambda: client.query("SELECT kind FROM alerts FINAL WHERE kind = 'budget'"), timeout=60)
        assert told
        seen = work(line, "reader", "verify", "--json")
        assert seen.returncode == 0, seen.stdout + seen.stderr
        assert json.loads(seen.stdout)["differences"] == []
        refused = work(line, "reader", *POLICY, "9")
        assert refused.returncode == 2
        assert len(refused.stderr.strip().splitlines()) == 1, refused.stderr
    finally:
        workers.close()


def test_nobody_writes_or_reads_what_is_not_in_the_table(line: Settings) -> None:
    """Every role with every topic, and one who has no role at all."""

    async def matrix() -> dict[tuple[str, str], tuple[bool, bool]]:
        places = [(name, topic) for name in (*(role.name for role in ROLES), "") for topic in ALL]
        users = [as_role(line, name) if name else as_user(line, "stranger") for name, _ in places]
        asked = [
            asyncio.gather(may_read(user, topic), may_write(user, topic))
            for user, (_, topic) in zip(users, places, strict=True)
        ]
        return dict(zip(places, [tuple(found) for found in await asyncio.gather(*asked)], strict=True))

    for topic in ALL:
        assert asyncio.run(may_write(line, topic))
    found = asyncio.run(matrix())
    wanted = {(role.name, topic): (topic in role.reads, topic in role.writes) for role in ROLES for topic in ALL} | {
        ("", topic): (False, False) for topic in ALL
    }
    assert {place: got for place, got in found.items() if got != wanted[place]} == {}


def test_the_plan_says_what_is_there_and_making_it_again_does_nothing(line: Settings) -> None:
    steps = [step for step in provision.plan(line) if step.kind == "acl"]
    assert {step.done for step in steps} == {True}
    assert provision.grant_access(line) == []
    name = f"User:{uuid4().hex[:8]}"
    other = [step for step in provision.plan(line, {"price": name}) if name in step.detail]
    assert {step.done for step in other} == {False}
    assert all(f"--allow-principal {name}" in step.statement for step in other)


def test_a_broker_without_an_authorizer_says_so(stack: Stack, line_settings: Settings) -> None:
    environment = settings_environment(line_settings)
    command = [sys.executable, "-m", "tollmeter", "setup", "--access"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "has no authorizer" in done.stderr
    assert {step.done for step in provision.plan(line_settings) if step.kind == "acl"} == {None}
