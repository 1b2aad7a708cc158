"""Set-up of a cluster is a list of steps, each safe to repeat: topics, the layout record, ClickHouse migrations.

The layout record fixes the partition counts for good: an organisation must stay in its partition.
"""

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import GroupCoordinatorNotAvailableError, KafkaError, for_code

from tollmeter.kafka_admin import kafka_admin
from tollmeter.schemas.topics import HASH_VERSION, LAYOUT_KEY, POLICIES, TOPICS, Topic
from tollmeter.settings import Settings
from tollmeter.sinks import migrate
from tollmeter.sinks.clickhouse import Rejected, Unavailable

_TIMEOUT_MS = 20_000
_SETTLE_S = 20.0
_ALREADY_EXISTS = 36
_Value = TypeVar("_Value")


class ProvisionError(Exception):
    """Set-up cannot go on; the text says what is wrong, where, and what to do."""


class UnreachableError(ProvisionError):
    """Kafka or ClickHouse does not answer, now."""


@dataclass(frozen=True, slots=True)
class Layout:
    """The partition counts that were fixed at set-up."""

    events: int
    priced: int


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


async def read_layout(settings: Settings) -> Layout:
    """Return the layout that set-up fixed, compared with the broker's own counts.

    Raises `ProvisionError` when nothing was set up, when a topic was recreated otherwise, or without a broker.
    """
    return await _guarded(settings, _read_layout(settings))


async def _read_layout(settings: Settings) -> Layout:
    layout = await _layout(settings)
    async with kafka_admin(settings, _TIMEOUT_MS) as admin:
        _check_counts(settings, layout, await _counts(admin), missing_is_wrong=True)
    return layout


async def _layout(settings: Settings) -> Layout:
    async with kafka_admin(settings, _TIMEOUT_MS) as admin:
        counts = await _counts(admin)
    layout = await _stored(settings) if settings.topic(POLICIES) in counts else None
    if layout is None:
        raise ProvisionError(
            f"{settings.topic(POLICIES)} at {settings.kafka} holds no layout: run `tollmeter setup` (or `tollmeter up`)"
        )
    return layout


async def stored_layout(settings: Settings) -> Layout:
    """Return the layout that set-up fixed, whatever the broker's counts are. Raises `ProvisionError`."""
    return await _guarded(settings, _layout(settings))


async def count_problems(settings: Settings, layout: Layout) -> dict[str, str]:
    """Return a line for each topic whose partition count is not that of the layout. Raises `ProvisionError`."""

    async def find() -> dict[str, str]:
        async with kafka_admin(settings, _TIMEOUT_MS) as admin:
            return dict(wrong_counts(settings, layout, await _counts(admin)))

    return await _guarded(settings, find())


def _migrations(settings: Settings, work: Callable[[Settings], list[str]]) -> list[Step]:
    try:
        return [Step("migration", name, settings.clickhouse_database, False) for name in work(settings)]
    except Unavailable as error:
        raise UnreachableError(str(error)) from None
    except (migrate.SchemaError, Rejected) as error:
        raise ProvisionError(str(error)) from None


async def _plan_kafka(settings: Settings) -> list[Step]:
    async with kafka_admin(settings, _TIMEOUT_MS) as admin:
        counts = await _counts(admin)
    return await _steps(settings, counts)


async def _steps(settings: Settings, counts: dict[str, int]) -> list[Step]:
    stored = await _stored(settings) if settings.topic(POLICIES) in counts else None
    wanted = Layout(settings.partitions_events, settings.partitions_priced)
    if stored not in (None, wanted):
        raise ProvisionError(
            f"the layout of {settings.topic(POLICIES)} is {stored}, the settings say {wanted}: the counts are fixed at "
            "set-up; set TOLLMETER_PARTITIONS_EVENTS and TOLLMETER_PARTITIONS_PRICED to them, or use a new topic prefix"
        )
    _check_counts(settings, wanted, counts, missing_is_wrong=False)
    steps = [
        Step("topic", settings.topic(topic.name), _describe(topic, wanted), settings.topic(topic.name) in counts)
        for topic in TOPICS
    ]
    detail = f"events {wanted.events}, priced {wanted.priced}, hash {HASH_VERSION}"
    return [*steps, Step("layout", settings.topic(POLICIES), detail, stored is not None)]


async def _apply_kafka(settings: Settings) -> list[Step]:
    async with kafka_admin(settings, _TIMEOUT_MS) as admin:
        steps = await _steps(settings, await _counts(admin))
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
    answer = await admin.create_topics(topics, timeout_ms=_TIMEOUT_MS)
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


async def _counts(admin: AIOKafkaAdminClient) -> dict[str, int]:
    described = await admin.describe_topics()
    return {topic["topic"]: len(topic["partitions"]) for topic in described if topic["error_code"] == 0}


def _check_counts(settings: Settings, layout: Layout, counts: dict[str, int], *, missing_is_wrong: bool) -> None:
    for topic in TOPICS:
        name = settings.topic(topic.name)
        if name not in counts and missing_is_wrong:
            raise ProvisionError(f"topic {name} is missing at {settings.kafka}: run `tollmeter setup`")
    for _, problem in wrong_counts(settings, layout, counts):
        raise ProvisionError(problem)


def wrong_counts(settings: Settings, layout: Layout, counts: dict[str, int]) -> Iterator[tuple[str, str]]:
    """Yield topic and problem where a topic exists with another count than the layout's."""
    for topic in TOPICS:
        name, wanted = settings.topic(topic.name), _partitions(topic, layout)
        found = counts.get(name, wanted)
        if found != wanted:
            problem = f"topic {name} has {found} partitions at {settings.kafka}, the layout needs {wanted}: "
            yield name, problem + "use a new TOLLMETER_TOPIC_PREFIX, or set the counts before the first set-up"


def _partitions(topic: Topic, layout: Layout) -> int:
    return {"events": layout.events, "priced": layout.priced, "one": 1}[topic.partitions]


def _describe(topic: Topic, layout: Layout) -> str:
    kept = "compacted" if topic.retention_ms < 0 else f"kept {topic.retention_ms // 86_400_000} d"
    return f"{_partitions(topic, layout)} partitions, {kept}"


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
    count = _partitions(topic, Layout(settings.partitions_events, settings.partitions_priced))
    return NewTopic(settings.topic(topic.name), count, settings.kafka_replication, topic_configs=options)


async def _stored(settings: Settings) -> Layout | None:
    """Return the newest layout record, None when there is none."""
    partition = TopicPartition(settings.topic(POLICIES), 0)
    consumer = AIOKafkaConsumer(
        **settings.kafka_options(), enable_auto_commit=False, request_timeout_ms=_TIMEOUT_MS, fetch_max_wait_ms=100
    )
    try:
        await consumer.start()
        consumer.assign([partition])
        await consumer.seek_to_beginning(partition)
        end = (await consumer.end_offsets([partition]))[partition]
        layout = None
        while await consumer.position(partition) < end:
            for record in (await consumer.getmany(partition, timeout_ms=1_000)).get(partition, []):
                if record.key == LAYOUT_KEY:
                    layout = _decode(settings, record.value)
        return layout
    finally:
        await consumer.stop()


def _decode(settings: Settings, value: bytes) -> Layout:
    try:
        document = json.loads(value)
        layout, version = Layout(int(document["events"]), int(document["priced"])), document["hash"]
    except (ValueError, KeyError, TypeError):
        raise ProvisionError(f"the layout record in {settings.topic(POLICIES)} is unreadable: {value[:80]!r}") from None
    if version != HASH_VERSION:
        raise ProvisionError(
            f"{settings.topic(POLICIES)} was set up with hash {version!r}, this release uses {HASH_VERSION!r}: "
            "an organisation would change its partition; use the release that set it up"
        )
    return layout


async def _store(settings: Settings) -> None:
    document = {"events": settings.partitions_events, "priced": settings.partitions_priced, "hash": HASH_VERSION}
    producer = AIOKafkaProducer(
        **settings.kafka_options(), acks="all", enable_idempotence=True, request_timeout_ms=_TIMEOUT_MS
    )
    try:
        await producer.start()
        await producer.send_and_wait(settings.topic(POLICIES), json.dumps(document).encode(), key=LAYOUT_KEY)
    finally:
        await producer.stop()


def _run(settings: Settings, work: Coroutine[Any, Any, _Value]) -> _Value:
    return asyncio.run(_guarded(settings, work))


async def _guarded(settings: Settings, work: Awaitable[_Value]) -> _Value:
    """Turn what a user can mend into one line."""
    logging.getLogger("aiokafka").addHandler(logging.NullHandler())  # its own complaints double ours
    try:
        return await work
    except (KafkaError, OSError, TimeoutError) as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UnreachableError(
            f"Kafka at {settings.kafka} cannot be used ({reason}): start it, or set TOLLMETER_KAFKA"
        ) from None
