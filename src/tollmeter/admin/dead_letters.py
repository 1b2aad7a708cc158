"""Dead letters: what lies there, and trying them again. Tried twice, a letter does no harm: its event keeps its id.

What belongs together is one case: the first letter of a record, the marks of its retries, and the letters of the
records that these became. A case has at most `MAX_ATTEMPTS` attempts, the first included.
"""

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from aiokafka import TopicPartition

from tollmeter.admin.verify.position import reader
from tollmeter.broker.client import kafka_producer, read_all, read_between
from tollmeter.broker.layout import read_layout
from tollmeter.broker.make import Consumer, Producer
from tollmeter.schemas import topics
from tollmeter.schemas.dead_letter import (
    MAX_ATTEMPTS,
    NOT_UNPACKED,
    RETRY_STAGE,
    VALUE_BYTES,
    Letter,
    SourcePlace,
    again_headers,
    read_letter,
    retry_headers,
)
from tollmeter.schemas.record import Record
from tollmeter.schemas.times import is_backfill
from tollmeter.settings import Settings

State = Literal["waiting", "retried", "exhausted", "withheld", "cut", "foreign"]
"""waiting: may be tried again. retried: was, and nothing was heard since. exhausted: failed `MAX_ATTEMPTS` times.
withheld: its value is a secret and not here. cut: too large, so that only its head is here, or nothing. foreign: no
event of a service, so trying it again means nothing."""


@dataclass(frozen=True, slots=True)
class Case:
    """A record that was refused: its newest letter, and where that lies among the dead letters."""

    letter: Letter
    state: State
    at: datetime
    size: int
    lies: tuple[int, int]
    """Partition and offset in usage.dlq."""

    def row(self) -> dict[str, Any]:
        letter = self.letter
        return {
            "id": str(letter.place),
            "reason": letter.reason,
            "stage": letter.stage,
            "attempts": letter.attempts,
            "state": self.state,
            "at": self.at.isoformat().replace("+00:00", "Z"),
            "bytes": self.size,
            "detail": letter.detail,
        }


@dataclass(slots=True)
class _Case:
    newest: Any
    letter: Letter
    tried: int = 0
    """Highest number of attempts that a mark of a retry speaks of."""


class Cases:
    """Puts letters and marks together, in the order of the topic."""

    def __init__(self, events_topic: str, partitions: int | None = None) -> None:
        self._events, self._partitions = events_topic, partitions
        self._cases: dict[SourcePlace, _Case] = {}
        self._became: dict[SourcePlace, tuple[SourcePlace, int]] = {}

    def add(self, record: "Record | _Light") -> None:
        """Take in a record of usage.dlq; what is no letter is passed over."""
        try:
            letter = read_letter(record.headers)
        except ValueError:
            return
        if letter.stage == RETRY_STAGE:
            if letter.retried_as is not None:
                self._became[letter.retried_as] = letter.first, letter.attempts
            case = self._cases.get(letter.first)
            if case is not None:
                case.tried = max(case.tried, letter.attempts)
            return
        first, attempts = self._became.get(letter.place) or self._as_said(letter)
        letter = letter._replace(first=first, attempts=attempts)
        known = self._cases.get(first)
        if known is None:
            self._cases[first] = _Case(record, letter)
        elif letter.attempts >= known.letter.attempts:
            known.newest, known.letter = record, letter

    def _as_said(self, letter: Letter) -> tuple[SourcePlace, int]:
        """Return the first place and the attempts that a letter's record claims, if its bytes are those of that one."""
        claimed = self._cases.get(letter.first)
        same = claimed is not None and letter.sha256 and claimed.letter.sha256 == letter.sha256
        return (letter.first, letter.attempts) if same else (letter.place, 1)

    def all(self) -> list[Case]:
        """Return the cases, the newest letter first."""
        found = [
            Case(
                case.letter,
                self._state(case),
                datetime.fromtimestamp(case.newest.timestamp / 1000, tz=UTC),
                len(case.newest.value or b"") if case.letter.size is None else case.letter.size,
                (case.newest.partition, case.newest.offset),
            )
            for case in self._cases.values()
        ]
        return sorted(found, key=lambda case: (case.at, case.letter.place), reverse=True)

    def _state(self, case: _Case) -> State:
        letter = case.letter
        beyond = self._partitions is not None and not 0 <= letter.place.partition < self._partitions
        if letter.place.topic != self._events or beyond:
            return "foreign"
        if letter.reason == "secret":
            return "withheld"
        if letter.reason == NOT_UNPACKED or (letter.size or 0) > VALUE_BYTES:
            return "cut"
        if case.tried > letter.attempts:
            return "retried"
        return "exhausted" if letter.attempts >= MAX_ATTEMPTS else "waiting"


async def read_cases(settings: Settings) -> list[Case]:
    """Return every case, the newest first. Raises `LogUnreadableError`."""
    topic = settings.topic(topics.DLQ)
    async with reader(settings) as consumer:
        layout = await read_layout(settings)
        cases = Cases(settings.topic(topics.EVENTS), layout.events)
        bounds = [TopicPartition(topic, number) for number in range(layout.events)]
        held = [_light(record) async for record in read_all(consumer, bounds)]
    for record in sorted(held, key=lambda record: (record.timestamp, record.partition, record.offset)):
        cases.add(record)
    return cases.all()


@dataclass(frozen=True, slots=True)
class _Light:
    """A record of the dead letters without its value, which may be large."""

    partition: int
    offset: int
    timestamp: int
    headers: Sequence[tuple[str, bytes]]
    value: range


def _light(record: Record) -> _Light:
    return _Light(record.partition, record.offset, record.timestamp, record.headers, range(len(record.value or b"")))


async def read_value(settings: Settings, case: Case) -> bytes | None:
    """Return the original bytes that a letter carries."""
    async with reader(settings) as consumer:
        found = await _record_at(consumer, TopicPartition(settings.topic(topics.DLQ), case.lies[0]), case.lies[1])
        return None if found is None else found.value


async def _record_at(consumer: Consumer, tp: TopicPartition, offset: int) -> Record | None:
    kept = (await consumer.beginning_offsets([tp]))[tp] <= offset < (await consumer.end_offsets([tp]))[tp]
    if kept:
        async for record in read_between(consumer, tp, offset, offset + 1):
            return record
    return None


@dataclass(slots=True)
class Outcome:
    """What a retry did. `lost`: LEDGER's letters whose record the source topic keeps no longer."""

    retried: int = 0
    lost: int = 0


async def retry(settings: Settings, chosen: Sequence[Case], rate: float) -> Outcome:
    """Send the original bytes of waiting cases to usage.events again, at most `rate` a second.

    The record first, then the mark: whoever is killed between the two tries again, and the event keeps its id.
    """
    outcome = Outcome()
    loop = asyncio.get_running_loop()
    async with kafka_producer(settings) as producer, reader(settings) as consumer:
        started = loop.time()
        for case in chosen:
            await asyncio.sleep(max(0.0, started + outcome.retried / rate - loop.time()))
            await _retry_one(settings, consumer, producer, case, outcome)
    return outcome


async def _retry_one(settings: Settings, consumer: Consumer, producer: Producer, case: Case, outcome: Outcome) -> None:
    letter = case.letter
    dlq = settings.topic(topics.DLQ)
    # LEDGER's letters hold a priced row; the event itself is still in its own topic
    at = TopicPartition(*letter.place[:2]) if letter.stage == "ledger" else TopicPartition(dlq, case.lies[0])
    found = await _record_at(consumer, at, letter.place.offset if letter.stage == "ledger" else case.lies[1])
    value = None if found is None else found.value
    if value is None and letter.reason != "empty":
        outcome.lost += 1
        return
    attempts = letter.attempts + 1
    events, partition = settings.topic(topics.EVENTS), letter.place.partition
    backfill = letter.backfill or (found is not None and is_backfill(found.headers))
    headers = again_headers(attempts, letter.first, backfill)
    sent = await producer.send_and_wait(
        events, value if value is not None else b"", partition=partition, headers=headers
    )
    mark = retry_headers(letter.place, attempts, letter.first, SourcePlace(events, partition, sent.offset))
    await producer.send_and_wait(dlq, b"", partition=partition, headers=mark)
    outcome.retried += 1


def select(
    cases: Iterable[Case],
    *,
    reasons: Sequence[str] = (),
    stages: Sequence[str] = (),
    partitions: Sequence[int] = (),
    since: datetime | None = None,
    until: datetime | None = None,
) -> list[Case]:
    """Keep the cases that match; what is not asked for matches everything."""
    return [
        case
        for case in cases
        if (not reasons or case.letter.reason in reasons)
        and (not stages or case.letter.stage in stages)
        and (not partitions or case.letter.place.partition in partitions)
        and (since is None or case.at >= since)
        and (until is None or case.at < until)
    ]
