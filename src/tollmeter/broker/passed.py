"""Records of `usage.priced` that a person has passed over: exactly these places, with who and why, kept for good.

A record of a format that nobody here knows stops its partition. It may be the work of a newer PRICE, then readers are
upgraded; or of somebody who should not write there, then it is passed over by name. Its bytes become a dead letter, and
the decision an entry of the compacted topic of policies, so that every replay goes by it as well.
"""

from collections.abc import AsyncIterator
from typing import NamedTuple

from aiokafka import TopicPartition
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tollmeter.broker.client import kafka_consumer, kafka_producer, read_all, read_between
from tollmeter.broker.layout import guarded, read_layout
from tollmeter.broker.make import TIMEOUT_MS, Consumer
from tollmeter.broker.topic_ids import id_of
from tollmeter.schemas import topics
from tollmeter.schemas.dead_letter import PASSED_OVER, dead_letter
from tollmeter.schemas.envelope import Newer, read_envelope
from tollmeter.schemas.record import Record
from tollmeter.settings import Settings

_KEY = "passed:"


class At(NamedTuple):
    """A place in one log: a topic that is made anew has another id."""

    log_id: str
    partition: int
    offset: int


class Passed(BaseModel):
    """An entry of the history."""

    model_config = ConfigDict(frozen=True)

    topic: str
    log_id: str
    partition: int = Field(ge=0)
    offset: int = Field(ge=0)
    what: str
    """Why the record stopped its partition."""
    by: str = Field(min_length=1, max_length=256)
    reason: str = Field(min_length=1, max_length=1_000)
    at_ms: int

    @property
    def at(self) -> At:
        return At(self.log_id, self.partition, self.offset)


class PassError(Exception):
    """The record cannot be passed over; the text says why."""


async def history(settings: Settings) -> list[Passed]:
    """Return every record that was passed over, oldest first. Raises `ProvisionError`."""
    return await guarded(settings, _history(settings))


async def _history(settings: Settings) -> list[Passed]:
    found: dict[bytes, Passed] = {}
    place = TopicPartition(settings.topic(topics.POLICIES), 0)
    async with kafka_consumer(settings, TIMEOUT_MS) as consumer:
        async for record in read_all(consumer, [place]):
            if record.key is not None and record.key.startswith(_KEY.encode()) and record.value is not None:
                try:
                    found[record.key] = Passed.model_validate_json(record.value)
                except ValidationError:
                    continue  # nothing that this command wrote
    return sorted(found.values(), key=lambda one: one.at_ms)


async def places(settings: Settings) -> frozenset[At]:
    """Return the places that are passed over. Raises `ProvisionError`."""
    return frozenset(one.at for one in await history(settings))


async def pass_over(settings: Settings, partition: int, offset: int, by: str, reason: str, now_ms: int) -> Passed:
    """Pass over one record of usage.priced that stops its partition, and return the entry of the history.

    The letter first, then the decision: nothing is passed over whose bytes are not kept. Raises `PassError` where no
    such record stands there, `ProvisionError`.
    """
    return await guarded(settings, _pass_over(settings, partition, offset, by, reason, now_ms))


async def _pass_over(settings: Settings, partition: int, offset: int, by: str, reason: str, now_ms: int) -> Passed:
    name = settings.topic(topics.PRICED)
    record = await _record_at(settings, TopicPartition(name, partition), offset)
    found = read_envelope(record)
    if not isinstance(found, Newer):
        raise PassError(f"{name}/{partition}/{offset} stops nobody: only a record of an unknown format is passed over")
    made = Passed(
        topic=name,
        log_id=await id_of(settings, topics.PRICED),
        partition=partition,
        offset=offset,
        what=found.why,
        by=by,
        reason=reason,
        at_ms=now_ms,
    )
    key = f"{_KEY}{made.topic}/{made.log_id}/{partition}/{offset}".encode()
    letter = dead_letter("operator", PASSED_OVER, f"{found.why}; {by}: {reason}", record, record.value)
    async with kafka_producer(settings, TIMEOUT_MS) as producer:
        await producer.send_and_wait(
            settings.topic(topics.DLQ), letter.value, key=letter.key, headers=letter.headers, partition=0
        )
        await producer.send_and_wait(
            settings.topic(topics.POLICIES), made.model_dump_json().encode(), key=key, partition=0
        )
    return made


async def _record_at(settings: Settings, place: TopicPartition, offset: int) -> Record:
    layout = await read_layout(settings)
    if place.partition >= layout.priced:
        raise PassError(f"{place.topic} has no partition {place.partition}")
    async with kafka_consumer(settings, TIMEOUT_MS) as consumer:
        async for record in _between(consumer, place, offset):
            return record
    raise PassError(f"no record stands at {place.topic}/{place.partition}/{offset}")


async def _between(consumer: Consumer, place: TopicPartition, offset: int) -> AsyncIterator[Record]:
    begin, end = (await consumer.beginning_offsets([place]))[place], (await consumer.end_offsets([place]))[place]
    if begin <= offset < end:
        async for record in read_between(consumer, place, offset, offset + 1):
            yield record
