"""Set-up of a cluster is a list of steps, each safe to repeat: topics, the layout record, ClickHouse migrations.

The layout record (`broker.layout`) fixes the partition counts for good.
"""

import asyncio
import json
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal, TypeVar

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import GroupCoordinatorNotAvailableError, for_code

from tollmeter.broker.client import TIMEOUT_MS, kafka_admin, kafka_producer
from tollmeter.broker.layout import (
    Layout,
    ProvisionError,
    UnreachableError,
    check_counts,
    guarded,
    partitions_of,
    stored,
    topic_counts,
)
from tollmeter.schemas.topics import HASH_VERSION, LAYOUT_KEY, POLICIES, TOPICS, Topic
from tollmeter.settings import Settings
from tollmeter.sinks.clickhouse import migrate
from tollmeter.sinks.clickhouse.client import Rejected, Unavailable

_SETTLE_S = 20.0
_ALREADY_EXISTS = 36
_Value = TypeVar("_Value")


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that set-up makes; `done` when it is there already."""

    kind: Literal["topic", "layout", "migration"]
    name: str
    detail: str
    done: bool


def plan(settings: Settings) -> list[Step]:
    """Return every step, marked done or open, without changing anything. Raises `ProvisionError`."""
    steps = _run(settings, _plan_kafka(settings))
    return [*steps, *_migrations(settings, migrate.pending)]


def apply(settings: Settings, *, progress: Callable[[Step], None] | None = None) -> list[Step]:
    """Make what is missing and return the steps taken. Raises `ProvisionError`; may be repeated at any time."""
    steps = [step for step in _run(settings, _apply_kafka(settings)) if not step.done]
    steps += _migrations(settings, migrate.apply)
    for step in steps:
        if progress:
            progress(step)
    return steps


def _migrations(settings: Settings, work: Callable[[Settings], list[str]]) -> list[Step]:
    try:
        return [Step("migration", name, settings.clickhouse_database, False) for name in work(settings)]
    except Unavailable as error:
        raise UnreachableError(str(error)) from None
    except (migrate.SchemaError, Rejected) as error:
        raise ProvisionError(str(error)) from None


async def _plan_kafka(settings: Settings) -> list[Step]:
    async with kafka_admin(settings, TIMEOUT_MS) as admin:
        counts = await topic_counts(admin)
    return await _steps(settings, counts)


async def _steps(settings: Settings, counts: dict[str, int]) -> list[Step]:
    found = await stored(settings) if settings.topic(POLICIES) in counts else None
    wanted = Layout(settings.partitions_events, settings.partitions_priced)
    if found not in (None, wanted):
        raise ProvisionError(
            f"the layout of {settings.topic(POLICIES)} is {found}, the settings say {wanted}: the counts are fixed at "
            "set-up; set TOLLMETER_PARTITIONS_EVENTS and TOLLMETER_PARTITIONS_PRICED to them, or use a new topic prefix"
        )
    check_counts(settings, wanted, counts, missing_is_wrong=False)
    steps = [
        Step("topic", settings.topic(topic.name), _describe(topic, wanted), settings.topic(topic.name) in counts)
        for topic in TOPICS
    ]
    detail = f"events {wanted.events}, priced {wanted.priced}, hash {HASH_VERSION}"
    return [*steps, Step("layout", settings.topic(POLICIES), detail, found is not None)]


async def _apply_kafka(settings: Settings) -> list[Step]:
    async with kafka_admin(settings, TIMEOUT_MS) as admin:
        steps = await _steps(settings, await topic_counts(admin))
        missing = {step.name for step in steps if step.kind == "topic" and not step.done}
        if missing:
            await _wake_coordinator(settings, admin)
            await _create(
                admin, [_new_topic(settings, topic) for topic in TOPICS if settings.topic(topic.name) in missing]
            )
            await _settle(admin, {settings.topic(topic.name) for topic in TOPICS})
    if not steps[-1].done:
        await _store(settings)
    return steps


async def _wake_coordinator(settings: Settings, admin: AIOKafkaAdminClient) -> None:
    """Let a fresh broker make its offsets topic now, while there is other work, and not when the workers join."""
    with suppress(GroupCoordinatorNotAvailableError):
        await admin.find_coordinator(settings.group("price"))


async def _create(admin: AIOKafkaAdminClient, topics: list[NewTopic]) -> None:
    answer = await admin.create_topics(topics, timeout_ms=TIMEOUT_MS)
    for name, code, *text in answer.topic_errors:
        if code not in (0, _ALREADY_EXISTS):
            raise ProvisionError(
                f"topic {name} could not be created: {for_code(code).__name__} {' '.join(filter(None, text))}"
            )


async def _settle(admin: AIOKafkaAdminClient, names: set[str]) -> None:
    """Return when every partition has a leader; a fresh topic has none for a moment."""
    async with asyncio.timeout(_SETTLE_S):
        while True:
            described = await admin.describe_topics(sorted(names))
            if all(
                topic["error_code"] == 0 and topic["partitions"] and all(p["leader"] >= 0 for p in topic["partitions"])
                for topic in described
            ):
                return
            await asyncio.sleep(0.05)


def _describe(topic: Topic, layout: Layout) -> str:
    kept = "compacted" if topic.retention_ms < 0 else f"kept {topic.retention_ms // 86_400_000} d"
    return f"{partitions_of(topic, layout)} partitions, {kept}"


def _new_topic(settings: Settings, topic: Topic) -> NewTopic:
    compacted = topic.retention_ms < 0
    options = {
        "cleanup.policy": "compact" if compacted else "delete",
        "max.message.bytes": str(topic.max_message_bytes),
        "message.timestamp.type": "LogAppendTime" if topic.append_time else "CreateTime",
        "min.insync.replicas": str(max(1, settings.kafka_replication - 1)),
    }
    if not compacted:
        options["retention.ms"] = str(topic.retention_ms)
    if topic.segment_bytes is not None:  # a reader begins at the beginning: what is overwritten must go soon
        options |= {
            "segment.bytes": str(topic.segment_bytes),
            "segment.ms": "3600000",
            "min.cleanable.dirty.ratio": "0.1",
        }
    count = partitions_of(topic, Layout(settings.partitions_events, settings.partitions_priced))
    return NewTopic(settings.topic(topic.name), count, settings.kafka_replication, topic_configs=options)


async def _store(settings: Settings) -> None:
    document = {"events": settings.partitions_events, "priced": settings.partitions_priced, "hash": HASH_VERSION}
    async with kafka_producer(settings, TIMEOUT_MS) as producer:
        await producer.send_and_wait(settings.topic(POLICIES), json.dumps(document).encode(), key=LAYOUT_KEY)


def _run(settings: Settings, work: Coroutine[object, object, _Value]) -> _Value:
    return asyncio.run(guarded(settings, work))
