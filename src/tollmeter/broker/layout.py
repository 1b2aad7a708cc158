"""The layout record fixes the partition counts for good: an organisation must stay in its partition.

It lies in the compacted topic of policies; everybody compares it with the broker's own counts before reading.
"""

from collections.abc import Awaitable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from aiokafka import TopicPartition
from aiokafka.errors import KafkaError

from tollmeter.broker.client import BrokerAway, kafka_admin, kafka_consumer, quiet, read_all
from tollmeter.broker.make import TIMEOUT_MS, Admin
from tollmeter.schemas.json_values import loads
from tollmeter.schemas.topics import HASH_VERSION, LAYOUT_KEY, POLICIES, TOPICS, Topic
from tollmeter.settings import Settings

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


async def read_layout(settings: Settings) -> Layout:
    """Return the layout that set-up fixed, compared with the broker's own counts.

    Raises `ProvisionError` when nothing was set up, when a topic was recreated otherwise, or without a broker.
    """
    return await guarded(settings, _read_layout(settings))


async def _read_layout(settings: Settings) -> Layout:
    layout = await _layout(settings)
    async with kafka_admin(settings, TIMEOUT_MS) as admin:
        check_counts(settings, layout, await topic_counts(admin), missing_is_wrong=True)
    return layout


async def _layout(settings: Settings) -> Layout:
    async with kafka_admin(settings, TIMEOUT_MS) as admin:
        counts = await topic_counts(admin)
    layout = await stored(settings) if settings.topic(POLICIES) in counts else None
    if layout is None:
        raise ProvisionError(
            f"{settings.topic(POLICIES)} at {settings.kafka} holds no layout: run `tollmeter setup` (or `tollmeter up`)"
        )
    return layout


async def stored_layout(settings: Settings) -> Layout:
    """Return the layout that set-up fixed, whatever the broker's counts are. Raises `ProvisionError`."""
    return await guarded(settings, _layout(settings))


async def count_problems(settings: Settings, layout: Layout) -> dict[str, str]:
    """Return a line for each topic whose partition count is not that of the layout. Raises `ProvisionError`."""

    async def find() -> dict[str, str]:
        async with kafka_admin(settings, TIMEOUT_MS) as admin:
            return dict(wrong_counts(settings, layout, await topic_counts(admin)))

    return await guarded(settings, find())


async def topic_counts(admin: Admin) -> dict[str, int]:
    described = await admin.describe_topics()
    return {topic["topic"]: len(topic["partitions"]) for topic in described if topic["error_code"] == 0}


def check_counts(settings: Settings, layout: Layout, counts: dict[str, int], *, missing_is_wrong: bool) -> None:
    for topic in TOPICS:
        name = settings.topic(topic.name)
        if name not in counts and missing_is_wrong:
            raise ProvisionError(f"topic {name} is missing at {settings.kafka}: run `tollmeter setup`")
    for _, problem in wrong_counts(settings, layout, counts):
        raise ProvisionError(problem)


def wrong_counts(settings: Settings, layout: Layout, counts: dict[str, int]) -> Iterator[tuple[str, str]]:
    """Yield topic and problem where a topic exists with another count than the layout's."""
    for topic in TOPICS:
        name, wanted = settings.topic(topic.name), partitions_of(topic, layout)
        found = counts.get(name, wanted)
        if found != wanted:
            problem = f"topic {name} has {found} partitions at {settings.kafka}, the layout needs {wanted}: "
            yield name, problem + "use a new TOLLMETER_TOPIC_PREFIX, or set the counts before the first set-up"


def partitions_of(topic: Topic, layout: Layout) -> int:
    return {"events": layout.events, "priced": layout.priced, "one": 1}[topic.partitions]


async def stored(settings: Settings) -> Layout | None:
    """Return the newest layout record, None when there is none."""
    layout = None
    async with kafka_consumer(settings, TIMEOUT_MS) as consumer:
        async for record in read_all(consumer, [TopicPartition(settings.topic(POLICIES), 0)]):
            if record.key == LAYOUT_KEY:
                layout = _decode(settings, record.value or b"")
    return layout


def _decode(settings: Settings, value: bytes) -> Layout:
    try:
        document = loads(value)
        layout, version = Layout(int(document["events"]), int(document["priced"])), document["hash"]
    except (ValueError, KeyError, TypeError):
        raise ProvisionError(f"the layout record in {settings.topic(POLICIES)} is unreadable: {value[:80]!r}") from None
    if version != HASH_VERSION:
        raise ProvisionError(
            f"{settings.topic(POLICIES)} was set up with hash {version!r}, this release uses {HASH_VERSION!r}: "
            "an organisation would change its partition; use the release that set it up"
        )
    return layout


async def guarded(settings: Settings, work: Awaitable[_Value]) -> _Value:
    """Turn what a user can mend into one line."""
    quiet()
    try:
        return await work
    except (KafkaError, OSError, TimeoutError) as error:
        raise UnreachableError(str(BrokerAway(settings, error))) from None
