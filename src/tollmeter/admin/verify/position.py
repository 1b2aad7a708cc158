"""Where the line stands: ends of the logs, and how far each stage has got. A stage has dealt with what it committed."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta

from aiokafka import TopicPartition
from aiokafka.errors import KafkaError

from tollmeter.broker.client import BrokerAway, kafka_admin, kafka_consumer
from tollmeter.broker.layout import ProvisionError, read_layout
from tollmeter.broker.make import Admin, Consumer
from tollmeter.schemas import topics
from tollmeter.settings import Settings

POLL_S = 0.1
REST_S = 0.5
"""A stage that has not moved for so long may be at the end of what it can commit."""
SLACK = timedelta(minutes=10)

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
    priced_from: Offsets
    """Where to begin reading usage.priced for the rows of the source records in question."""
    dlq_begin: Offsets
    dlq_end: Offsets
    since: Offsets
    """The first source offset in question, where a time was given: else as `events_begin`."""
    price_done: Offsets
    """Up to where PRICE, LEDGER and WATCH had got in the time given, never beyond the ends."""
    ledger_done: Offsets
    watch_done: Offsets

    def waiting(self, stage: str) -> int:
        """Return how many records before the ends the stage had not dealt with."""
        ends, done = {
            "price": (self.events_end, self.price_done),
            "ledger": (self.priced_end, self.ledger_done),
            "watch": (self.priced_end, self.watch_done),
        }[stage]
        return sum(end - done[number] for number, end in ends.items())


@asynccontextmanager
async def reader(settings: Settings) -> AsyncIterator[Consumer]:
    """A consumer without a group. Raises `LogUnreadableError`."""
    try:
        async with kafka_consumer(settings) as consumer:
            yield consumer
    except KafkaError as error:
        raise LogUnreadableError(str(BrokerAway(settings, error))) from None


async def position(
    settings: Settings,
    wait_s: float = 30.0,
    stages: tuple[str, ...] = ("price", "ledger"),
    since: datetime | None = None,
) -> Position:
    """Take the end of usage.events, wait until these stages have dealt with all before it, and say where things stand.

    `since`: the logs begin with what was appended then. Returns after `wait_s` at the latest, with what was still
    waiting. Raises `LogUnreadableError`.
    """
    deadline = time.monotonic() + wait_s
    try:
        layout = await read_layout(settings)
    except ProvisionError as error:
        raise LogUnreadableError(str(error)) from None
    async with reader(settings) as consumer, kafka_admin(settings) as admin:
        events_begin, events_end = await _bounds(consumer, settings.topic(topics.EVENTS), layout.events)
        first = await _since(consumer, settings.topic(topics.EVENTS), events_begin, events_end, since)
        done = {
            "price": await _wait(admin, settings, "price", topics.EVENTS, events_begin, events_end, deadline, consumer)
        }
        priced_begin, priced_end = await _bounds(consumer, settings.topic(topics.PRICED), layout.priced)
        # A priced record is appended behind its source; clocks of brokers may differ.
        early = since - SLACK if since else None
        priced_from = await _since(consumer, settings.topic(topics.PRICED), priced_begin, priced_end, early)
        dlq_begin, dlq_end = await _bounds(consumer, settings.topic(topics.DLQ), layout.events)
        for stage in ("ledger", "watch"):
            until = deadline if stage in stages else 0.0
            done[stage] = await _wait(admin, settings, stage, topics.PRICED, priced_begin, priced_end, until)
    priced = priced_begin, priced_end, priced_from
    stood = done["price"], done["ledger"], done["watch"]
    return Position(events_begin, events_end, *priced, dlq_begin, dlq_end, first, *stood)


async def _bounds(consumer: Consumer, topic: str, count: int) -> tuple[dict[int, int], dict[int, int]]:
    partitions = [TopicPartition(topic, number) for number in range(count)]
    begin, end = await consumer.beginning_offsets(partitions), await consumer.end_offsets(partitions)
    return {tp.partition: begin[tp] for tp in partitions}, {tp.partition: end[tp] for tp in partitions}


async def _since(
    consumer: Consumer, topic: str, begin: Offsets, end: Offsets, since: datetime | None
) -> dict[int, int]:
    """Return the first offset appended at `since` or later, by partition."""
    if since is None:
        return dict(begin)
    at_ms = int(since.timestamp() * 1000)
    found = await consumer.offsets_for_times({TopicPartition(topic, number): at_ms for number in begin})
    return {tp.partition: max(begin[tp.partition], at.offset if at else end[tp.partition]) for tp, at in found.items()}


async def ledger_reaches(settings: Settings, wanted: Offsets, wait_s: float) -> dict[int, int]:
    """Return up to where LEDGER has got in usage.priced, as soon as that is `wanted` everywhere or the time is over."""
    async with kafka_admin(settings) as admin:
        zero = dict.fromkeys(wanted, 0)
        return await _wait(admin, settings, "ledger", topics.PRICED, zero, wanted, time.monotonic() + wait_s)


async def _wait(
    admin: Admin,
    settings: Settings,
    stage: str,
    topic: str,
    begin: Offsets,
    end: Offsets,
    deadline: float,
    consumer: Consumer | None = None,
) -> dict[int, int]:
    """Return up to where the stage has got, as soon as that is `end` everywhere, or at the deadline.

    With a `consumer` it looks at what a stage at rest has left: nobody commits an offset behind a transaction's mark.
    """
    resting: tuple[Offsets, float] = {}, time.monotonic()
    while True:
        committed = await admin.list_consumer_group_offsets(settings.group(stage))
        found = {tp.partition: meta.offset for tp, meta in committed.items() if tp.topic == settings.topic(topic)}
        done = {number: min(last, max(found.get(number, 0), begin[number])) for number, last in end.items()}
        if done != resting[0]:
            resting = done, time.monotonic()
        late = time.monotonic() >= deadline
        if done != end and consumer is not None and (late or time.monotonic() >= resting[1] + REST_S):
            for number in [number for number in done if done[number] < end[number]]:
                if await _no_record(consumer, TopicPartition(settings.topic(topic), number), done[number], end[number]):
                    done[number] = end[number]
        if done == end or late:
            return done
        await asyncio.sleep(POLL_S)


async def _no_record(consumer: Consumer, tp: TopicPartition, begin: int, end: int) -> bool:
    """Tell whether no record stands in [begin, end)."""
    consumer.assign([tp])
    consumer.seek(tp, begin)
    found = (await consumer.getmany(tp, timeout_ms=500)).get(tp, [])
    if any(record.offset < end for record in found):
        return False
    return bool(await consumer.position(tp) >= end)
