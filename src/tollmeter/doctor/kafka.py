"""The broker: does it answer, are topics and their configuration as set up, who may write, do the stages follow."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator

from aiokafka import TopicPartition
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaError

from tollmeter.admin.setup import topic_config
from tollmeter.broker import acls
from tollmeter.broker.access_rules import rules
from tollmeter.broker.client import kafka_admin, kafka_consumer, quiet, read_between
from tollmeter.broker.layout import ProvisionError, read_layout
from tollmeter.broker.make import Admin
from tollmeter.doctor.check import Check, judged
from tollmeter.embedded import control
from tollmeter.schemas.topics import PRICED, TOPICS
from tollmeter.settings import Settings

TIMEOUT_MS = 8_000
SKEW_S = 60.0
LAG = 50_000
STAGES = ("price", "ledger", "watch")


async def kafka(settings: Settings) -> AsyncIterator[Check]:
    """Look at the broker; the first check that fails for want of an answer is the last."""
    quiet()
    reached = await asyncio.to_thread(_address, settings)
    yield reached
    if reached.state != "ok":
        return
    try:
        layout = await read_layout(settings)
    except ProvisionError as error:
        yield Check("topics and layout", "wrong", str(error), "tollmeter setup")
        return
    yield Check("topics and layout", "ok", f"{layout.events} and {layout.priced} partitions, as set up")
    try:
        async with kafka_admin(settings, TIMEOUT_MS) as admin:
            yield await _configuration(settings, admin)
            yield await _access(settings, admin)
        yield await _clock(settings, layout.priced)
    except (KafkaError, OSError, TimeoutError) as error:
        yield Check("broker", "unknown", f"it stopped answering ({type(error).__name__})", "look at its log")


def _address(settings: Settings) -> Check:
    first = settings.kafka.split(",")[0]
    host, _, port = first.rpartition(":")
    try:
        began = time.monotonic()
        with socket.create_connection((host.strip("[]"), int(port)), timeout=5):
            pass
        return Check("broker", "ok", f"{first} answers within {(time.monotonic() - began) * 1_000:.0f} ms")
    except (OSError, ValueError, OverflowError) as error:
        do = "start it with 'tollmeter up', or set TOLLMETER_KAFKA"
        return Check("broker", "wrong", f"{first} does not answer ({type(error).__name__})", do)


async def _configuration(settings: Settings, admin: Admin) -> Check:
    asked = [ConfigResource(ConfigResourceType.TOPIC, settings.topic(topic.name)) for topic in TOPICS]
    found: dict[str, dict[str, str]] = {}
    for answer in await admin.describe_configs(asked):
        for code, _, _, name, entries in answer.resources:
            if code:
                return Check("topics' configuration", "unknown", "not told to this user", "grant DescribeConfigs")
            found[name] = {entry[0]: entry[1] for entry in entries}
    other = [
        f"{settings.topic(topic.name)}: {option} is {has}, set up with {wanted}"
        for topic in TOPICS
        for option, wanted in topic_config(settings, topic).items()
        if option != "retention.ms"  # whoever keeps logs longer is right
        if (has := found.get(settings.topic(topic.name), {}).get(option)) != wanted
    ]
    short = [
        f"{settings.topic(topic.name)} keeps its records for {int(kept) / 3_600_000:g} h"
        for topic in TOPICS
        if topic.retention_ms > 0
        if 0 <= int(kept := found[settings.topic(topic.name)].get("retention.ms") or -1) < topic.retention_ms
    ]
    problems = [*other, *short]
    do = "kafka-configs --alter --entity-type topics: 'tollmeter setup --dry-run --statements' has the options"
    return judged("topics' configuration", "; ".join(problems[:4]) or "as set up", bool(problems), do)


async def _access(settings: Settings, admin: Admin) -> Check:
    name = "rules of access"
    try:
        there = await acls.present(admin)
    except acls.NoAuthorizerError as error:
        loopback = settings.kafka.startswith(("127.", "localhost", "[::1]"))
        do = "give the broker an authorizer, then 'tollmeter setup --access' (docs/operations.md)"
        return judged(name, str(error), not loopback, do, "warning")
    except KafkaError as error:
        return Check(name, "unknown", f"not told to this user ({type(error).__name__})", "ask as the admin")
    missing = [rule for rule in rules(settings) if rule not in there]
    found = f"{len(missing)} of {len(rules(settings))} are missing" if missing else "all there"
    return judged(name, found, bool(missing), "tollmeter setup --access", "warning")


async def _clock(settings: Settings, partitions: int) -> Check:
    """Compare the newest append time with this clock: a tick is appended each second while PRICE runs."""
    newest = 0
    async with kafka_consumer(settings, TIMEOUT_MS) as consumer:
        places = [TopicPartition(settings.topic(PRICED), number) for number in range(partitions)]
        ends, begins = await consumer.end_offsets(places), await consumer.beginning_offsets(places)
        for place in places:
            if begins[place] < ends[place]:
                async for record in read_between(consumer, place, ends[place] - 1, ends[place]):
                    newest = max(newest, record.timestamp)
    ahead_s = newest / 1_000 - time.time()
    if not newest:
        return Check("clock of the broker", "unknown", "nothing was written yet")
    found = f"the newest record is {-ahead_s:.0f} s old" if ahead_s < 0 else f"{ahead_s:.1f} s ahead of this machine"
    return judged("clock of the broker", found, ahead_s > SKEW_S, "let both clocks follow NTP")


def lags(settings: Settings) -> list[Check]:
    """Say of each stage how much waits for it."""
    checks = []
    for stage, lag in control.lag(settings, STAGES).items():
        name = f"lag of {stage}"
        if lag is None:
            do = f"start one: 'tollmeter worker {stage}', or 'tollmeter up'"
            checks.append(Check(name, "warning", "it has never committed anything", do))
        else:
            do = "start more workers of the stage, or look why it stands: docs/runbook.md, Consumer lag"
            checks.append(judged(name, f"{lag:,} records", lag > LAG, do, "warning"))
    return checks
