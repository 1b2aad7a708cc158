"""Somebody looks at the topics that no stage reads: what none of our programs wrote there is told.

Their readers (guards, notify, commands) pass over what they cannot read, each by itself and in silence to others.
"""

import asyncio
import logging
from collections.abc import Sequence

from aiokafka import TopicPartition
from aiokafka.errors import KafkaError

from tollmeter.broker.client import kafka_consumer
from tollmeter.broker.make import TAIL_MS, Consumer
from tollmeter.schemas import topics
from tollmeter.schemas.access import BLOCK_PREFIX, RATE_PREFIX
from tollmeter.schemas.dead_letter import read_letter
from tollmeter.schemas.guards import PREFIX as GUARD_PREFIX
from tollmeter.schemas.json_values import loads
from tollmeter.schemas.model_rules import MODELS_PREFIX
from tollmeter.schemas.record import UNREADABLE, Record
from tollmeter.settings import Settings
from tollmeter.streams.engine.incidents import Incidents
from tollmeter.streams.rules.events.letters import foreign_alert

log = logging.getLogger("tollmeter.ledger")

KEYS = {
    topics.POLICIES: ("policy:", "member:", "history:", "passed:", "layout", BLOCK_PREFIX, RATE_PREFIX, MODELS_PREFIX),
    topics.SPEND: ("spend/", "as_of/", GUARD_PREFIX),
    topics.NOTICES: ("notice:", "mute:", "ack:", "feedback:", "forget:"),
}
"""What the keys of our own records begin with."""
_AGAIN_S = 5.0


def foreign(topic: str, record: Record) -> str:
    """Say why a record of one of these topics is none of ours, "" when it has our form."""
    if record.value is UNREADABLE:
        return "not unpacked"
    if topic == topics.DLQ:
        try:
            read_letter(record.headers)
        except ValueError:
            return "no letter"
        return ""
    if not (record.key or b"").decode("utf-8", "replace").startswith(KEYS[topic]):
        return "unknown key"
    if record.value is None:
        return ""
    try:
        return "" if isinstance(loads(record.value), dict) else "no JSON object"
    except ValueError:
        return "no JSON object"


class Lookout:
    """Follows these topics from the time it begins, as long as the ledger is this worker's to roll up."""

    def __init__(self, settings: Settings, incidents: Incidents, partitions: int) -> None:
        self._settings, self._incidents = settings, incidents
        names = {topics.DLQ: partitions} | dict.fromkeys(KEYS, 1)
        self._plain = {settings.topic(name): name for name in names}
        self._places = [
            TopicPartition(settings.topic(name), at) for name, count in names.items() for at in range(count)
        ]
        self._positions: dict[TopicPartition, int] = {}
        self._running: asyncio.Task[None] | None = None

    def step(self, *, ours: bool) -> None:
        """Begin when it is ours to look, end when it is not."""
        if not ours and self._running is not None:
            self._running.cancel()
            self._running = None
        elif ours and (self._running is None or self._running.done()):
            self._running = asyncio.create_task(self._follow())

    async def _follow(self) -> None:
        while True:
            try:
                async with kafka_consumer(self._settings, start="latest", waits_ms=TAIL_MS) as consumer:
                    await self._begin(consumer)
                    while True:
                        for place, records in (await consumer.getmany(timeout_ms=1_000)).items():
                            await self._look(self._plain[place.topic], records)
                            self._positions[place] = records[-1].offset + 1
            except (KafkaError, OSError, TimeoutError) as error:
                log.info("nobody looks at %s now: %r", ", ".join(self._plain), error)
            await asyncio.sleep(_AGAIN_S)

    async def _begin(self, consumer: Consumer) -> None:
        consumer.assign(self._places)
        ends = await consumer.end_offsets(self._places)
        for place, end in ends.items():
            consumer.seek(place, min(self._positions.get(place, end), end))

    async def _look(self, topic: str, records: Sequence[Record]) -> None:
        problems: dict[str, Record] = {}
        for record in records:
            if problem := foreign(topic, record):
                problems.setdefault(problem, record)
        for problem, record in problems.items():
            await self._incidents.say(foreign_alert("ledger", topic, problem, record))
