"""The alerts topic, read without a consumer group, so that nobody else notices: the last alerts, and those to come."""

import json
from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

from aiokafka import TopicPartition

from tollmeter.broker.client import kafka_admin, kafka_consumer
from tollmeter.broker.make import Consumer
from tollmeter.cli.output import UserError, err
from tollmeter.schemas import topics
from tollmeter.settings import Settings

QUIET_MS = 1_000
Event = dict[str, Any]


class AlertTopic:
    """CloudEvents of all partitions of the topic; what is none is passed over with a word on stderr."""

    def __init__(self, consumer: Consumer, partitions: Iterable[TopicPartition]) -> None:
        self._consumer = consumer
        self._partitions = list(partitions)

    async def last(self, count: int) -> list[Event]:
        """Return the last `count` alerts by the time of their cause, once each; the reader is at the end then."""
        first = await self._consumer.beginning_offsets(self._partitions)
        end = await self._consumer.end_offsets(self._partitions)
        for tp in self._partitions:
            self._consumer.seek(tp, max(first[tp], end[tp] - count))
        found: dict[str, Event] = {}
        while await self._before(end):
            batches = await self._consumer.getmany(timeout_ms=QUIET_MS)
            for tp, records in batches.items():
                events = (_event(record.value) for record in records if record.offset < end[tp])
                found |= {str(event.get("id")): event for event in events if event is not None}
        for tp in self._partitions:
            self._consumer.seek(tp, end[tp])
        return sorted(found.values(), key=lambda event: str(event.get("time")))[-count:] if count else []

    async def rewind(self) -> None:
        """Go back to the oldest alert that the topic keeps."""
        await self._consumer.seek_to_beginning(*self._partitions)

    async def events(self) -> AsyncGenerator[Event]:
        """Yield alerts from here on as they come, without an end."""
        async for record in self._consumer:
            event = _event(record.value)
            if event is not None:
                yield event

    async def _before(self, end: dict[TopicPartition, int]) -> bool:
        return any([await self._consumer.position(tp) < end[tp] for tp in self._partitions])


@asynccontextmanager
async def alert_topic(settings: Settings) -> AsyncIterator[AlertTopic]:
    """Open the topic. Raises `UserError` where there is none, `KafkaError` when the broker does not answer."""
    topic = settings.topic(topics.ALERTS)
    async with kafka_admin(settings) as admin:
        (described,) = await admin.describe_topics([topic])
    if described["error_code"]:
        raise UserError(f"topic {topic} does not exist on {settings.kafka}: run 'tollmeter setup'")
    partitions = sorted(TopicPartition(topic, entry["partition"]) for entry in described["partitions"])
    async with kafka_consumer(settings, start="latest", waits_ms=500) as consumer:
        consumer.assign(partitions)
        yield AlertTopic(consumer, partitions)


def _event(value: bytes | None) -> Event | None:
    try:
        event = json.loads(value or b"")
    except ValueError:
        event = None
    if isinstance(event, dict):
        return event
    err.print("skipped a record that is no CloudEvent")
    return None
