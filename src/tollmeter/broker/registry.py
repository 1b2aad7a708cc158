"""The registry is a compacted topic: a change is done when its record is acknowledged and has been read back."""

import asyncio
from collections.abc import Coroutine, Mapping
from typing import TypeVar

from aiokafka import TopicPartition
from aiokafka.errors import KafkaError

from tollmeter.broker.client import BrokerAway, kafka_consumer, kafka_producer, read_all, read_between
from tollmeter.broker.make import Consumer
from tollmeter.schemas import topics
from tollmeter.schemas.registry import Entry, read_entry
from tollmeter.schemas.secrets import NO_KEY, holds_secret
from tollmeter.settings import Settings

_Value = TypeVar("_Value")
Rows = dict[str, Entry]
"""Every row in force by its key."""


class RegistryError(Exception):
    """The registry cannot be read or changed; the text says why and what to do."""


def read(settings: Settings) -> Rows:
    """Return what the registry holds. Raises `RegistryError`."""
    return _reach(settings, _read(settings))


def write(settings: Settings, changes: Mapping[str, Entry | None]) -> None:
    """Return when each change (None = the row goes) is acknowledged and read back. Raises `RegistryError`."""
    if changes:
        _reach(settings, _write(settings, changes))


def apply(rows: Rows, key: bytes | None, value: bytes | None) -> None:
    """Take over one record of the topic. Raises `ValueError` for one that cannot be read; the row stays as it was."""
    if key is None:
        return
    name = key.decode()
    entry = None if value is None else read_entry(name, value)
    if entry is not None:
        rows[name] = entry
    elif value is None:
        rows.pop(name, None)


def _reach(settings: Settings, work: Coroutine[object, object, _Value]) -> _Value:
    try:
        return asyncio.run(work)
    except (KafkaError, OSError) as error:
        raise RegistryError(str(BrokerAway(settings, error))) from None


async def _read(settings: Settings) -> Rows:
    rows: Rows = {}
    async with kafka_consumer(settings) as consumer:
        async for record in read_all(consumer, [await _place(settings, consumer)]):
            try:
                apply(rows, record.key, record.value)
            except ValueError as error:
                raise RegistryError(
                    f"{settings.topic(topics.REGISTRY)} holds a row that this version cannot read ({error}): upgrade it"
                ) from None
    return rows


async def _write(settings: Settings, changes: Mapping[str, Entry | None]) -> None:
    records = [
        (name.encode(), None if entry is None else entry.model_dump_json().encode()) for name, entry in changes.items()
    ]
    names = [entry.model_dump_json(exclude={"value", "hash"}) for entry in changes.values() if entry is not None]
    if any(map(holds_secret, names)):
        raise RegistryError(NO_KEY)
    topic = settings.topic(topics.REGISTRY)
    async with kafka_consumer(settings) as consumer:
        place = await _place(settings, consumer)
        async with kafka_producer(settings) as producer:
            sent = [await producer.send(topic, value, key=key, partition=0) for key, value in records]
            offsets = [(await one).offset for one in sent]
        await _read_back(settings, consumer, place, dict(zip(offsets, records, strict=True)))


async def _read_back(
    settings: Settings,
    consumer: Consumer,
    place: TopicPartition,
    records: Mapping[int, tuple[bytes, bytes | None]],
) -> None:
    """Return when the broker gives every record as it was sent. Raises `RegistryError`."""
    found = {
        record.offset: (record.key, record.value)
        async for record in read_between(consumer, place, min(records), max(records) + 1)
    }
    if any(found.get(offset) != record for offset, record in records.items()):
        raise RegistryError(
            f"{settings.kafka} acknowledged a change of {place.topic} and does not give it back: repeat the command"
        )


async def _place(settings: Settings, consumer: Consumer) -> TopicPartition:
    topic = settings.topic(topics.REGISTRY)
    if topic not in await consumer.topics():  # asked for its end it would be waited for
        raise RegistryError(f"topic {topic} does not exist on {settings.kafka}: run 'tollmeter setup'")
    return TopicPartition(topic, 0)
