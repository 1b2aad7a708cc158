"""The journal: `usage.notices`, compacted, one record per notice, mute, acknowledgement and word about an
incident; the last of a key is true.

Whoever is in charge writes notices; commands write the rest, which the one in charge reads as news.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TypeVar

from aiokafka import TopicPartition
from pydantic import BaseModel, ValidationError

from tollmeter.broker import make
from tollmeter.schemas import topics
from tollmeter.schemas.policy import Policy
from tollmeter.settings import Settings
from tollmeter.streams.notify.feedback import Feedback
from tollmeter.streams.notify.notice import Acknowledgement, Mute, Notice
from tollmeter.streams.rules.limits.adjusted import NEVER_MS, adjusted, next_end_ms

log = logging.getLogger("tollmeter.notify")

_Said = TypeVar("_Said")
NOTICE, MUTE, ACK, FEEDBACK, POLICY = "notice:", "mute:", "ack:", "feedback:", "policy:"
FORGET = "forget:"
"""What a notice shall say instead, under its id: somebody whom it names is forgotten. The one in charge does it."""


@dataclass(slots=True)
class Records:
    """What the journal and the policies hold, or what is new in them; None = deleted."""

    notices: dict[str, Notice] = field(default_factory=dict)
    mutes: dict[str, Mute | None] = field(default_factory=dict)
    acks: dict[str, Acknowledgement] = field(default_factory=dict)
    forgotten: dict[str, Notice] = field(default_factory=dict)
    feedback: dict[str, Feedback] = field(default_factory=dict)
    policies: dict[str, Policy | None] = field(default_factory=dict)

    def add(self, key: str, value: bytes | None) -> None:
        """Take one record; one of a newer format that cannot be read is left aside."""
        kind, _, name = key.partition(":")
        kind += ":"
        if value is None:
            self.notices.pop(name, None) if kind == NOTICE else None
            self.acks.pop(name, None) if kind == ACK else None
            self.forgotten.pop(name, None) if kind == FORGET else None
            self.feedback.pop(name, None) if kind == FEEDBACK else None
            if kind == MUTE:
                self.mutes[name] = None
            if kind == POLICY:
                self.policies[name] = None
            return
        try:
            if kind == NOTICE:
                self.notices[name] = Notice.model_validate_json(value)
            elif kind == MUTE:
                self.mutes[name] = Mute.model_validate_json(value)
            elif kind == ACK:
                self.acks[name] = Acknowledgement.model_validate_json(value)
            elif kind == FORGET:
                self.forgotten[name] = Notice.model_validate_json(value)
            elif kind == FEEDBACK:
                self.feedback[name] = Feedback.model_validate_json(value)
            elif kind == POLICY:
                self.policies[name] = Policy.model_validate_json(value)
        except ValidationError as error:
            log.warning("record %s cannot be read and is left aside: %s", key[:80], error.errors()[0]["msg"])


class Journal:
    """Reads `usage.notices` and `usage.policies`, writes `usage.notices`."""

    def __init__(self, settings: Settings) -> None:
        self._notices = TopicPartition(settings.topic(topics.NOTICES), 0)
        self._policies = TopicPartition(settings.topic(topics.POLICIES), 0)
        self._producer, self._consumer = make.producer(settings), make.reader(settings)
        self._order = asyncio.Lock()
        self._ends_ms: dict[str, tuple[Policy, int]] = {}
        """Policies whose limits are otherwise for a time, and when that, or the first of it, is over."""

    async def start(self) -> None:
        await make.begin(self._producer)
        await make.begin(self._consumer)
        self._consumer.assign([self._notices, self._policies])

    async def stop(self) -> None:
        await self._consumer.stop()
        await self._producer.stop()

    async def load(self, now_s: float) -> Records:
        """Return everything from the start, policies with the limits that hold now."""
        await self._consumer.seek_to_beginning(self._notices, self._policies)
        self._ends_ms.clear()
        return await self.news(now_s)

    async def news(self, now_s: float) -> Records:
        """Return what was written since the last call of this or `load`, and the policies whose adjustments ended."""
        records, now_ms = await self._read_to_end(), round(now_s * 1_000)
        over = {name: policy for name, (policy, end_ms) in self._ends_ms.items() if end_ms <= now_ms}
        for name, policy in (over | records.policies).items():
            self._ends_ms.pop(name, None)
            if policy is not None and (end_ms := next_end_ms(policy, now_ms)) < NEVER_MS:
                self._ends_ms[name] = policy, end_ms
            records.policies[name] = policy and adjusted(policy, now_ms)
        return records

    async def _read_to_end(self) -> Records:
        """Return what is new; between two calls nothing is asked of the broker."""
        records, places = Records(), (self._notices, self._policies)
        self._consumer.resume(*places)
        ends = await self._consumer.end_offsets(places)
        for partition, end in ends.items():
            while await self._consumer.position(partition) < end:
                for record in (await self._consumer.getmany(partition, timeout_ms=500)).get(partition, []):
                    if record.key is not None:
                        records.add(record.key.decode(errors="replace"), record.value)
        self._consumer.pause(*places)
        return records

    async def put(self, notices: Iterable[Notice]) -> None:
        """Return when the notices are acknowledged."""
        await self.write({NOTICE + notice.id: notice for notice in notices})

    async def write(self, records: dict[str, BaseModel | None]) -> None:
        """Return when these records are acknowledged; None deletes. Calls keep their order."""
        async with self._order:
            sent = [
                await self._producer.send(
                    self._notices.topic,
                    None if value is None else value.model_dump_json().encode(),
                    key=key.encode(),
                    partition=0,
                )
                for key, value in records.items()
            ]
        await asyncio.gather(*sent)

    async def publish(
        self, topic: str, partition: int, key: bytes, value: bytes, headers: list[tuple[str, bytes]]
    ) -> None:
        """Return when a record of another topic is acknowledged."""
        await self._producer.send_and_wait(topic, value, key=key, partition=partition, headers=headers)


def dropped(said: dict[str, _Said], over: Callable[[_Said], bool]) -> list[str]:
    """Drop what people said and is over; return the names."""
    gone = [name for name, one in said.items() if over(one)]
    for name in gone:
        del said[name]
    return gone
