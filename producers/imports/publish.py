"""Send many records fast: whole batches built here, partitions in turn, no keys, every record acknowledged."""

import asyncio
from collections.abc import AsyncIterable, Callable, Iterable, Sequence
from typing import Any

from aiokafka.errors import KafkaError

from tollmeter.broker import make
from tollmeter.broker.cluster import NotOursError, require_ours
from tollmeter.broker.make import BATCH_BYTES
from tollmeter.schemas import topics
from tollmeter.settings import Settings

IN_FLIGHT = 8

Acknowledged = Callable[[int], None]


class NotSentError(Exception):
    """The broker cannot be reached or refused records; the text says which and what to do."""


class Publisher:
    """Async context manager around one idempotent producer. `send` waits for room, `drain` for acknowledgements.

    Every record gets the `headers`.
    """

    def __init__(
        self,
        settings: Settings,
        topic: str = topics.EVENTS,
        acknowledged: Acknowledged | None = None,
        headers: Sequence[tuple[str, bytes]] = (),
    ) -> None:
        self._settings = settings
        self._topic = settings.topic(topic)
        self._acknowledged, self._headers = acknowledged, list(headers)
        self._partitions: list[int] = []
        self._turn = 0
        self._pending: set[asyncio.Task[None]] = set()
        self.sent = 0

    async def __aenter__(self) -> "Publisher":
        self._producer = make.batch_producer(self._settings)
        try:
            await make.begin(self._producer)
            await require_ours(self._producer, self._settings, self._topic)
            self._partitions = sorted(await self._producer.partitions_for(self._topic))
        except NotOursError as refused:
            await self._producer.stop()
            raise NotSentError(
                f"Kafka at {self._settings.kafka} gets nothing ({refused}): set TOLLMETER_KAFKA or TOLLMETER_DATA_DIR"
            ) from None
        except (KafkaError, TimeoutError) as error:
            await self._producer.stop()
            raise NotSentError(_unreachable(self._settings, self._topic, error)) from None
        return self

    async def __aexit__(self, kind: object, *_: object) -> None:
        try:
            if kind is None:
                await self.drain()
        finally:
            for task in self._pending:
                task.cancel()
            await self._producer.stop()

    async def send(self, values: Iterable[bytes]) -> None:
        """Hand records over as batches; returns when at most a few are unacknowledged. Raises `NotSentError`."""
        batch = self._producer.create_batch()
        for value in values:
            if batch.append(key=None, value=value, timestamp=None, headers=self._headers) is None:
                await self._submit(batch)
                batch = self._producer.create_batch()
                if batch.append(key=None, value=value, timestamp=None, headers=self._headers) is None:
                    raise NotSentError(f"a record of {len(value)} bytes does not fit into a batch of {BATCH_BYTES}")
        if batch.record_count():
            await self._submit(batch)

    async def drain(self) -> None:
        """Return when every record handed over is acknowledged. Raises `NotSentError`."""
        while self._pending:
            await self._settle(asyncio.ALL_COMPLETED)

    async def _submit(self, batch: Any) -> None:
        while len(self._pending) >= IN_FLIGHT:
            await self._settle(asyncio.FIRST_COMPLETED)
        partition = self._partitions[self._turn % len(self._partitions)]
        self._turn += 1
        self._pending.add(asyncio.create_task(self._deliver(batch, batch.record_count(), partition)))

    async def _deliver(self, batch: object, count: int, partition: int) -> None:
        try:
            await (await self._producer.send_batch(batch, self._topic, partition=partition))
        except KafkaError as error:
            raise NotSentError(_unreachable(self._settings, self._topic, error)) from None
        self.sent += count
        if self._acknowledged:
            self._acknowledged(count)

    async def _settle(self, when: Any) -> None:
        done, self._pending = await asyncio.wait(self._pending, return_when=when)
        for task in done:
            task.result()


async def publish(
    settings: Settings,
    blocks: Iterable[Iterable[bytes]],
    topic: str = topics.EVENTS,
    acknowledged: Acknowledged | None = None,
) -> int:
    """Send blocks of records in bulk and return how many were acknowledged. Raises `NotSentError`."""
    async with Publisher(settings, topic, acknowledged) as publisher:
        for block in blocks:
            await publisher.send(block)
            await asyncio.sleep(0)  # building a block holds the loop: let the sender run between two
    return publisher.sent


async def publish_timed(
    settings: Settings,
    blocks: AsyncIterable[Iterable[bytes]],
    topic: str = topics.EVENTS,
    acknowledged: Acknowledged | None = None,
) -> int:
    """Send blocks as they come (a paced source) and return how many were acknowledged. Raises `NotSentError`."""
    async with Publisher(settings, topic, acknowledged) as publisher:
        async for block in blocks:
            await publisher.send(block)
    return publisher.sent


def _unreachable(settings: Settings, topic: str, error: Exception) -> str:
    return (
        f"cannot send to {topic} at {settings.kafka} ({type(error).__name__}): "
        "start a stack with 'tollmeter up' or set TOLLMETER_KAFKA"
    )
