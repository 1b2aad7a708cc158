"""Compacted topics of one partition as what they hold: the last value of each key; changes, acknowledged."""

import asyncio
from collections.abc import Mapping

from aiokafka import TopicPartition
from aiokafka.errors import KafkaError

from tollmeter.broker.client import BrokerAway, BrokerError, kafka_consumer, kafka_producer, read_all
from tollmeter.settings import Settings

Value = bytes | None


def read(settings: Settings, topic: str) -> dict[bytes, bytes]:
    """Return the last value of each key that has one. Raises `BrokerError`."""
    try:
        return asyncio.run(_read(settings, TopicPartition(settings.topic(topic), 0)))
    except (KafkaError, OSError) as error:
        raise BrokerAway(settings, error) from None


def write(settings: Settings, topic: str, changes: Mapping[bytes, Value]) -> int:
    """Return how many there were when all are acknowledged; None is a tombstone. Raises `BrokerError`."""
    try:
        if changes:
            asyncio.run(_write(settings, settings.topic(topic), changes))
    except (KafkaError, OSError) as error:
        raise BrokerAway(settings, error) from None
    return len(changes)


async def _read(settings: Settings, place: TopicPartition) -> dict[bytes, bytes]:
    found: dict[bytes, bytes] = {}
    async with kafka_consumer(settings) as consumer:
        if place.topic not in await consumer.topics():  # asked for its end it would be waited for
            raise BrokerError(f"topic {place.topic} does not exist on {settings.kafka}: run 'tollmeter setup'")
        async for record in read_all(consumer, [place]):
            if record.key is None:
                continue
            if record.value is None:
                found.pop(record.key, None)
            elif isinstance(record.value, bytes):
                found[record.key] = record.value
    return found


async def _write(settings: Settings, topic: str, changes: Mapping[bytes, Value]) -> None:
    async with kafka_producer(settings) as producer:
        sent = [await producer.send(topic, value, key=key, partition=0) for key, value in changes.items()]
        await asyncio.gather(*sent)
