"""Kafka clients: made in one way, stopped at the end of their `with` also when they never connected; one word for a
broker that is away.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from tollmeter.broker.unpack import bound
from tollmeter.schemas.record import Record
from tollmeter.settings import Settings

TIMEOUT_MS = 20_000
AT_ONCE_MS = 1_000
"""How long one look for more records may wait."""


class BrokerError(Exception):
    """The broker cannot be reached, or it lacks topics; the text is one line for the user."""


class BrokerAway(BrokerError):  # noqa: N818  # the field's word
    """No broker answers."""

    def __init__(self, settings: Settings, error: BaseException) -> None:
        super().__init__(
            f"no Kafka broker answers at {settings.kafka} ({type(error).__name__}): "
            "start one with 'tollmeter up' or set TOLLMETER_KAFKA"
        )


def quiet() -> None:
    """Leave aiokafka's own complaints out of the log: they double ours."""
    logging.getLogger("aiokafka").addHandler(logging.NullHandler())


@asynccontextmanager
async def kafka_admin(settings: Settings, timeout_ms: int = TIMEOUT_MS) -> AsyncIterator[AIOKafkaAdminClient]:
    """Give a connected admin client. Raises `KafkaError`, `OSError`."""
    admin = AIOKafkaAdminClient(**settings.kafka_options(), request_timeout_ms=timeout_ms)
    try:
        await admin.start()
        yield admin
    finally:
        await admin.close()


@asynccontextmanager
async def kafka_producer(settings: Settings, timeout_ms: int = 2 * TIMEOUT_MS) -> AsyncIterator[AIOKafkaProducer]:
    """Give a producer that writes each record once, to all brokers. Raises `KafkaError`, `OSError`."""
    producer = AIOKafkaProducer(
        **settings.kafka_options(), acks="all", enable_idempotence=True, request_timeout_ms=timeout_ms
    )
    try:
        await producer.start()
        yield producer
    finally:
        await producer.stop()


@asynccontextmanager
async def kafka_consumer(
    settings: Settings, timeout_ms: int = 2 * TIMEOUT_MS, start: str = "earliest"
) -> AsyncIterator[AIOKafkaConsumer]:
    """Give a consumer without a group, for logs with large records. Raises `KafkaError`, `OSError`.

    What a batch unpacks to is bounded: anybody may have written it.
    """
    bound()
    consumer = AIOKafkaConsumer(
        **settings.kafka_options(),
        enable_auto_commit=False,
        auto_offset_reset=start,
        isolation_level="read_committed",  # what was aborted is nobody's
        request_timeout_ms=timeout_ms,
        fetch_max_wait_ms=100,
        max_partition_fetch_bytes=8 << 20,
        fetch_max_bytes=32 << 20,
    )
    try:
        await consumer.start()
        await asyncio.sleep(0)  # stopped before its own tasks have begun, it raises CancelledError
        yield consumer
    finally:
        await consumer.stop()


async def read_all(consumer: AIOKafkaConsumer, tps: Sequence[TopicPartition]) -> AsyncIterator[Record]:
    """Yield what these partitions hold now, from their beginning to their end, one partition after the other."""
    begins, ends = await consumer.beginning_offsets(tps), await consumer.end_offsets(tps)
    for tp in tps:
        async for record in read_between(consumer, tp, begins[tp], ends[tp]):
            yield record


async def read_between(consumer: AIOKafkaConsumer, tp: TopicPartition, begin: int, end: int) -> AsyncIterator[Record]:
    """Yield the records of a partition in [begin, end)."""
    if begin >= end:
        return
    consumer.assign([tp])
    consumer.seek(tp, begin)
    while (await consumer.position(tp)) < end:
        for record in (await consumer.getmany(tp, timeout_ms=AT_ONCE_MS)).get(tp, []):
            if record.offset < end:
                yield record
