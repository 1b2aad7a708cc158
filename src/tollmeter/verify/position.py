"""Where the line stands: ends of the logs, and how far each stage has got. A stage has dealt with what it committed."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from tollmeter.provision import ProvisionError, read_layout
from tollmeter.schemas import topics
from tollmeter.settings import Settings

POLL_S = 0.1

Offsets = Mapping[int, int]


class LogUnreadableError(Exception):
    """The broker cannot be reached or lacks the topics; one line that says what to do."""


@dataclass(frozen=True, slots=True)
class Position:
    """Begin and end of the logs by partition. `priced_end` was taken when PRICE had reached `events_end` or gave up."""

    events_begin: Offsets
    events_end: Offsets
    priced_begin: Offsets
    priced_end: Offsets
    dlq_begin: Offsets
    dlq_end: Offsets
    price_done: Offsets
    """Up to where PRICE, LEDGER and WATCH had got in the time given, never beyond the ends."""
    ledger_done: Offsets
    watch_done: Offsets

    def waiting(self, stage: str) -> int:
        """Return how many records before the ends the stage had not dealt with."""
        ends, done = {
            "price": (self.events_end, self.price_done), "ledger": (self.priced_end, self.ledger_done),
            "watch": (self.priced_end, self.watch_done),
        }[stage]  # fmt: skip
        return sum(end - done[number] for number, end in ends.items())


@asynccontextmanager
async def reader(settings: Settings) -> AsyncIterator[AIOKafkaConsumer]:
    """A consumer without a group. Raises `LogUnreadableError`."""
    consumer = AIOKafkaConsumer(
        **settings.kafka_options(), enable_auto_commit=False, auto_offset_reset="earliest",
        max_partition_fetch_bytes=8 << 20, fetch_max_bytes=32 << 20,
    )  # fmt: skip
    try:
        await consumer.start()
        await asyncio.sleep(0)  # stopped before its own tasks have begun, it raises CancelledError
        yield consumer
    except KafkaError as error:
        raise LogUnreadableError(
            f"the log at {settings.kafka} cannot be read ({type(error).__name__}): "
            "start a stack with 'tollmeter up' or set TOLLMETER_KAFKA"
        ) from None
    finally:
        await consumer.stop()


async def position(settings: Settings, wait_s: float = 30.0, stages: tuple[str, ...] = ("price", "ledger")) -> Position:
    """Take the end of usage.events, wait until these stages have dealt with all before it, and say where things stand.

    Returns after `wait_s` at the latest, with what was still waiting. Raises `LogUnreadableError`.
    """
    deadline = time.monotonic() + wait_s
    try:
        layout = await read_layout(settings)
    except ProvisionError as error:
        raise LogUnreadableError(str(error)) from None
    async with reader(settings) as consumer, _admin(settings) as admin:
        events_begin, events_end = await _bounds(consumer, settings.topic(topics.EVENTS), layout.events)
        done = {"price": await _wait(admin, settings, "price", topics.EVENTS, events_begin, events_end, deadline)}
        priced_begin, priced_end = await _bounds(consumer, settings.topic(topics.PRICED), layout.priced)
        dlq_begin, dlq_end = await _bounds(consumer, settings.topic(topics.DLQ), layout.events)
        for stage in ("ledger", "watch"):
            until = deadline if stage in stages else 0.0
            done[stage] = await _wait(admin, settings, stage, topics.PRICED, priced_begin, priced_end, until)
    return Position(
        events_begin, events_end, priced_begin, priced_end, dlq_begin, dlq_end,
        done["price"], done["ledger"], done["watch"],
    )  # fmt: skip


@asynccontextmanager
async def _admin(settings: Settings) -> AsyncIterator[AIOKafkaAdminClient]:
    admin = AIOKafkaAdminClient(**settings.kafka_options())
    try:
        await admin.start()
        yield admin
    finally:
        await admin.close()


async def _bounds(consumer: AIOKafkaConsumer, topic: str, count: int) -> tuple[dict[int, int], dict[int, int]]:
    partitions = [TopicPartition(topic, number) for number in range(count)]
    begin, end = await consumer.beginning_offsets(partitions), await consumer.end_offsets(partitions)
    return {tp.partition: begin[tp] for tp in partitions}, {tp.partition: end[tp] for tp in partitions}


async def _wait(
    admin: AIOKafkaAdminClient,
    settings: Settings,
    stage: str,
    topic: str,
    begin: Offsets,
    end: Offsets,
    deadline: float,
) -> dict[int, int]:
    """Return up to where the stage has got, as soon as that is `end` everywhere, or at the deadline."""
    while True:
        committed = await admin.list_consumer_group_offsets(settings.group(stage))
        found = {tp.partition: meta.offset for tp, meta in committed.items() if tp.topic == settings.topic(topic)}
        done = {number: min(last, max(found.get(number, 0), begin[number])) for number, last in end.items()}
        if done == end or time.monotonic() >= deadline:
            return done
        await asyncio.sleep(POLL_S)
