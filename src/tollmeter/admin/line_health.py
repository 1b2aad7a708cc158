"""How far behind the line is, and what it set aside: from Kafka alone, so that it can be said with ClickHouse away."""

import asyncio
import json
import time
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from typing import NamedTuple

from aiokafka import TopicPartition
from aiokafka.errors import KafkaError

from tollmeter.admin.dead_letters import read_cases
from tollmeter.admin.verify.position import SLACK, LogUnreadableError, Offsets, position, reader
from tollmeter.broker.client import BrokerAway, kafka_consumer, read_between
from tollmeter.broker.make import Consumer
from tollmeter.schemas import topics
from tollmeter.settings import Settings
from tollmeter.streams.rules.pricing.fx import CURRENCIES

MOST_LETTERS = 50_000
"""Above so many records the dead letters are counted, and not looked into."""
_LOOK_S = 2.0


class Behind(NamedTuple):
    """What a stage has not dealt with: records, and how long the oldest of them has waited; None = not known."""

    records: int
    oldest_s: float | None


class Letters(NamedTuple):
    """The dead letters that are kept: cases by what became of them and by reason; None where they are too many."""

    records: int
    states: Mapping[str, int] | None
    reasons: Mapping[str, int] | None


class LineHealth(NamedTuple):
    """The stages by name, and the dead letters."""

    behind: Mapping[str, Behind]
    letters: Letters


class PublishedBook(NamedTuple):
    """The price book that PRICE published last, when, and the day of the newest exchange rate of each currency."""

    id: str
    at: datetime
    rates: Mapping[str, date | None]


async def line_health(settings: Settings) -> LineHealth:
    """Return where the stages stand now. Raises `LogUnreadableError`."""
    at = await position(settings, 0.0, ())
    places: dict[str, tuple[str, Offsets, Offsets]] = {
        "price": (topics.EVENTS, at.events_end, at.price_done),
        "ledger": (topics.PRICED, at.priced_end, at.ledger_done),
        "watch": (topics.PRICED, at.priced_end, at.watch_done),
    }
    behind = {}
    async with reader(settings) as consumer:
        for stage, (topic, ends, done) in places.items():
            late = _late(settings, topic, ends, done)
            behind[stage] = Behind(at.waiting(stage), await _oldest_s(consumer, late))
    records = sum(end - at.dlq_begin[number] for number, end in at.dlq_end.items())
    if records > MOST_LETTERS:
        return LineHealth(behind, Letters(records, None, None))
    cases = await read_cases(settings) if records else []
    states = Counter[str](case.state for case in cases)
    reasons = Counter(case.letter.reason for case in cases)
    return LineHealth(behind, Letters(records, states, reasons))


async def stored_until(settings: Settings) -> datetime | None:
    """Return the time before which all that was sent is in the ledger: since when PRICE or LEDGER lets something wait.

    None where something waits and its age is not known. Raises `LogUnreadableError`.
    """
    now = datetime.now(UTC)
    at = await position(settings, 0.0, ())
    places = (
        _late(settings, topics.EVENTS, at.events_end, at.price_done),
        _late(settings, topics.PRICED, at.priced_end, at.ledger_done),
    )
    async with reader(settings) as consumer:
        ages = [await _oldest_s(consumer, late) for late in places]
    if None in ages:
        return None
    # A priced record is appended behind its source, later by what PRICE was behind.
    behind = max(ages[0] or 0.0, ages[1] + SLACK.total_seconds() if ages[1] else 0.0)
    return now - timedelta(seconds=behind)


def _late(settings: Settings, topic: str, ends: Offsets, done: Offsets) -> dict[TopicPartition, int]:
    """Return by partition the first offset that a stage has not dealt with, where there is one."""
    return {TopicPartition(settings.topic(topic), n): done[n] for n, end in ends.items() if done[n] < end}


async def published_book(settings: Settings) -> PublishedBook | None:
    """Return which price book is in force, None while PRICE has published none. Raises `LogUnreadableError`."""
    place = TopicPartition(settings.topic(topics.PRICES), 0)
    try:
        async with kafka_consumer(settings) as consumer:
            end = (await consumer.end_offsets([place]))[place] if place.topic in await consumer.topics() else 0
            records = [record async for record in read_between(consumer, place, max(0, end - 1), end)]
    except (KafkaError, OSError) as error:
        raise LogUnreadableError(str(BrokerAway(settings, error))) from None
    if not records or records[-1].value is None:
        return None
    document = await asyncio.to_thread(json.loads, records[-1].value)
    today = datetime.now(UTC).date()
    days = [(rate["currency"], date.fromisoformat(rate["day"])) for rate in document["fx"]]
    past = [(name, day) for name, day in days if day <= today]
    newest = {name: max((day for one, day in past if one == name), default=None) for name in CURRENCIES}
    return PublishedBook(document["price_book"], datetime.fromtimestamp(records[-1].timestamp / 1_000, UTC), newest)


async def _oldest_s(consumer: Consumer, late: Mapping[TopicPartition, int]) -> float | None:
    """Return for how long the oldest record at these places has been in its log; 0 where nothing waits."""
    if not late:
        return 0.0
    consumer.assign(list(late))
    for place, offset in late.items():
        consumer.seek(place, offset)
    found: dict[TopicPartition, int] = {}
    deadline = time.monotonic() + _LOOK_S
    while len(found) < len(late) and time.monotonic() < deadline:
        for place, records in (await consumer.getmany(timeout_ms=200)).items():
            found.setdefault(place, records[0].timestamp)
    return max(0.0, time.time() - min(found.values()) / 1_000) if found else None
