"""Set-up of a cluster is a list of steps, each safe to repeat: topics, the layout record, ClickHouse migrations.

The layout record (`broker.layout`) fixes the partition counts for good. Who may do what is shown with the rest:
rules of access are made on demand, and grants by whoever administers ClickHouse.
"""

import asyncio
import json
import shlex
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal, TypeVar

from aiokafka.admin import NewTopic
from aiokafka.errors import GroupCoordinatorNotAvailableError, KafkaError, for_code

from tollmeter.broker import acls
from tollmeter.broker.access_rules import Rule, by_place, command, rules
from tollmeter.broker.client import kafka_admin, kafka_producer
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
from tollmeter.broker.make import TIMEOUT_MS, Admin
from tollmeter.schemas.topics import HASH_VERSION, LAYOUT_KEY, POLICIES, TOPICS, Topic
from tollmeter.settings import Settings
from tollmeter.sinks.clickhouse import migrate
from tollmeter.sinks.clickhouse.client import Rejected, Unavailable
from tollmeter.sinks.clickhouse.grants import grants

_SETTLE_S = 20.0
_ALREADY_EXISTS = 36
_Value = TypeVar("_Value")


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that set-up makes, or shows; `done` when it is there already, None when nobody says."""

    kind: Literal["topic", "layout", "migration", "acl", "grant"]
    name: str
    detail: str
    done: bool | None
    statement: str = ""
    """How it is made by hand: a command of Kafka's tools, or SQL."""


def plan(settings: Settings, principals: Mapping[str, str] | None = None) -> list[Step]:
    """Return every step, marked done or open, without changing anything. Raises `ProvisionError`.

    `principals` names who a role of `broker.access_rules` is, where it is not `User:<group prefix>-<role>`.
    """
    steps = _run(settings, _plan_kafka(settings))
    there = _run(settings, _present(settings))
    access = [_access_step(group, there) for group in by_place(rules(settings, principals))]
    rights = [
        Step("grant", grant.on, f"{grant.user}: {grant.rights}", None, grant.statement) for grant in grants(settings)
    ]
    return [*steps, *_migrations(settings, migrate.pending), *access, *rights]


def grant_access(settings: Settings, principals: Mapping[str, str] | None = None) -> list[Step]:
    """Make the rules of access that are missing at the broker, and return them. Raises `ProvisionError`."""
    return [_access_step(group, set()) for group in by_place(_run(settings, _make_access(settings, principals)))]


async def _make_access(settings: Settings, principals: Mapping[str, str] | None) -> list[Rule]:
    async with kafka_admin(settings, TIMEOUT_MS) as admin:
        there = await acls.present(admin)
        missing = [rule for rule in rules(settings, principals) if rule not in there]
        if missing:
            await acls.make(admin, missing)
        return missing


async def _present(settings: Settings) -> set[Rule] | None:
    """Return the rules at the broker; None where it has none, or does not tell this user."""
    async with kafka_admin(settings, TIMEOUT_MS) as admin:
        try:
            return await acls.present(admin)
        except (acls.NoAuthorizerError, KafkaError):
            return None


def _access_step(group: Sequence[Rule], there: Collection[Rule] | None) -> Step:
    """Return the step of the rules of one principal in one place."""
    first, operations = group[0], ", ".join(rule.operation for rule in group)
    where = first.name if first.resource == "topic" else f"{first.resource} {first.name}"
    done = None if there is None else all(rule in there for rule in group)
    return Step("acl", where, f"{first.principal}: {operations}", done, command(group))


def apply(settings: Settings, *, progress: Callable[[Step], None] | None = None) -> list[Step]:
    """Make what is missing and return the steps taken. Raises `ProvisionError`; may be repeated at any time."""
    steps = [step for step in _run(settings, _apply_kafka(settings)) if not step.done]
    steps += _migrations(settings, migrate.apply)
    for step in steps:
        if progress:
            progress(step)
    return steps


def _migrations(settings: Settings, work: Callable[[Settings], list[str]]) -> list[Step]:
    texts = {step.name: step.statement(settings) for step in migrate.migrations()}
    try:
        return [
            Step("migration", name, settings.clickhouse_database, False, texts.get(name, "")) for name in work(settings)
        ]
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
    made = {topic.name: _new_topic(settings, topic) for topic in TOPICS}
    steps = [
        Step("topic", new.name, _describe(topic, wanted), new.name in counts, _topic_command(new))
        for topic, new in ((topic, made[topic.name]) for topic in TOPICS)
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


async def _wake_coordinator(settings: Settings, admin: Admin) -> None:
    """Let a fresh broker make its offsets topic now, while there is other work, and not when the workers join."""
    with suppress(GroupCoordinatorNotAvailableError):
        await admin.find_coordinator(settings.group("price"))


async def _create(admin: Admin, topics: list[NewTopic]) -> None:
    answer = await admin.create_topics(topics, timeout_ms=TIMEOUT_MS)
    for name, code, *text in answer.topic_errors:
        if code not in (0, _ALREADY_EXISTS):
            raise ProvisionError(
                f"topic {name} could not be created: {for_code(code).__name__} {' '.join(filter(None, text))}"
            )


async def _settle(admin: Admin, names: set[str]) -> None:
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


def _topic_command(topic: NewTopic) -> str:
    options = " ".join(f"--config {shlex.quote(f'{name}={value}')}" for name, value in topic.topic_configs.items())
    return (
        f"kafka-topics --bootstrap-server $KAFKA --create --if-not-exists --topic {topic.name} "
        f"--partitions {topic.num_partitions} --replication-factor {topic.replication_factor} {options}"
    )


def topic_config(settings: Settings, topic: Topic) -> dict[str, str]:
    """Return the configuration that a topic is made with."""
    return dict(_new_topic(settings, topic).topic_configs)


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
