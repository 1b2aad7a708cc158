"""Kafka clients for the length of a `with`, stopped at its end also when they never connected; one word for a broker
that is away.
"""

import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from aiokafka import TopicPartition

from tollmeter.broker import make
from tollmeter.broker.make import LOOK_MS, TIMEOUT_MS, Admin, Consumer, Producer
from tollmeter.schemas.record import Record
from tollmeter.settings import Settings

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
async def kafka_admin(settings: Settings, timeout_ms: int = TIMEOUT_MS) -> AsyncIterator[Admin]:
    """Give a connected admin client. Raises `KafkaError`, `OSError`."""
    admin = make.admin(settings, timeout_ms)
    try:
        await make.begin(admin)
        yield admin
    finally:
        await admin.close()


@asynccontextmanager
async def kafka_producer(settings: Settings, timeout_ms: int = 2 * TIMEOUT_MS) -> AsyncIterator[Producer]:
    """Give a producer that writes each record once, to all brokers. Raises `KafkaError`, `OSError`."""
    producer = make.producer(settings, timeout_ms=timeout_ms)
    try:
        await make.begin(producer)
        yield producer
    finally:
        await producer.stop()


@asynccontextmanager
async def kafka_consumer(
    settings: Settings, timeout_ms: int = 2 * TIMEOUT_MS, start: str = "earliest", waits_ms: int = LOOK_MS
) -> AsyncIterator[Consumer]:
    """Give a consumer without a group, see `make.reader`. Raises `KafkaError`, `OSError`."""
    consumer = make.reader(settings, timeout_ms=timeout_ms, start=start, waits_ms=waits_ms)
    try:
        await make.begin(consumer)
        yield consumer
    finally:
        await consumer.stop()


async def read_all(consumer: Consumer, tps: Sequence[TopicPartition]) -> AsyncIterator[Record]:
    """Yield what these partitions hold now, from their beginning to their end, one partition after the other."""
    begins, ends = await consumer.beginning_offsets(tps), await consumer.end_offsets(tps)
    for tp in tps:
        async for record in read_between(consumer, tp, begins[tp], ends[tp]):
            yield record


async def read_between(consumer: Consumer, tp: TopicPartition, begin: int, end: int) -> AsyncIterator[Record]:
    """Yield the records of a partition in [begin, end)."""
    if begin >= end:
        return
    consumer.assign([tp])
    consumer.seek(tp, begin)
    while (await consumer.position(tp)) < end:
        for record in (await consumer.getmany(tp, timeout_ms=AT_ONCE_MS)).get(tp, []):
            if record.offset < end:
                yield record
