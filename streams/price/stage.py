"""PRICE: source records to priced rows. Dead letters and rows are acknowledged by the broker before anything is acked.

To each target there is one unacknowledged record at a time. With two in flight the first could fail for good and the
second land: WATCH's high water would have passed the first, and its rows would be skipped for ever.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import ClassVar, Protocol, Self

from faust.types import TP

from tollmeter.schemas import topics
from tollmeter.schemas.dead_letter import NOT_UNPACKED, DeadLetter, dead_letter
from tollmeter.schemas.envelope import source_id_header, tick_record
from tollmeter.schemas.record import Delivery, Place, Record
from tollmeter.settings import Settings
from tollmeter.streams.engine import metrics
from tollmeter.streams.engine.gaps import Loss
from tollmeter.streams.engine.line import Line
from tollmeter.streams.engine.loop import Batching
from tollmeter.streams.engine.stage import run as run_stage
from tollmeter.streams.price.batch import NOTHING, PricedBatch, price_batch
from tollmeter.streams.price.book.book import PriceBook, load
from tollmeter.streams.price.book.fx_history import RateFile, said
from tollmeter.streams.price.book.publish import document
from tollmeter.streams.price.quarantine import Quarantine
from tollmeter.streams.price.sandbox import Sandbox
from tollmeter.streams.rules.events.decode_avro import Reject
from tollmeter.streams.rules.events.letters import letter_alert
from tollmeter.streams.rules.events.reject_flood import RejectFloods
from tollmeter.streams.rules.records.encode import Block

log = logging.getLogger("tollmeter.price")

TICK_S = 1.0
MARK_S = 0.25
"""So soon behind rows WATCH judges what their open buckets show; without new rows nothing is sent."""
REPORT_S = 60.0
REFRESH_S = 5.0
LINGER_S = 0.05
"""A batch over a few events costs as much as one over hundreds: at 1,000 a second this saves a third of a core."""


def _letter(record: Record, reject: Reject) -> DeadLetter:
    """Return the letter of a record: no key rests there for a month, and what was not unpacked is not there."""
    absent = reject.reason in ("secret", NOT_UNPACKED)
    return dead_letter("price", reject.reason, reject.detail, record, None if absent else record.value)


class Priced(Protocol):
    """What PRICE needs of a batch that is priced."""

    @property
    def records(self) -> Sequence[Record]: ...
    @property
    def rejects(self) -> Sequence[Reject]: ...
    @property
    def accepted(self) -> int: ...
    @property
    def unpriced(self) -> int: ...
    def blocks(self, partitions: int, book_id: str, boot: str) -> dict[int, list[Block]]: ...


class Pricing(Protocol):
    """What PRICE needs of a price book."""

    @property
    def book_id(self) -> str: ...
    def price(self, batches: Sequence[Sequence[Record]], quarantined: Mapping[Place, str] = ...) -> Priced: ...
    def document(self) -> tuple[bytes, bytes]: ...
    def refresh(self) -> bool: ...


class PriceKernel:
    """Prices a batch by whole columns, under one book for the life of a worker; exchange rates come in as they do."""

    def __init__(self, book: PriceBook, fx: RateFile | None = None) -> None:
        self._book, self._fx = book, fx
        self.book_id = book.id

    def refresh(self) -> bool:
        """Take over exchange rates that have come into their file; tell whether there are any. A wrong file is none."""
        rates = None if self._fx is None else self._fx.changed()
        if rates is None or tuple(rates) == self._book.fx:
            return False
        self._book.use_rates(rates)
        log.info("exchange rates taken over: %s", said(rates))
        return True

    def price(self, batches: Sequence[Sequence[Record]], quarantined: Mapping[Place, str] = NOTHING) -> PricedBatch:
        """Price source records, see `price_batch`."""
        return price_batch(batches, self._book, quarantined)

    def document(self) -> tuple[bytes, bytes]:
        """Return the book as key and value of its record."""
        return document(self._book)


class Price:
    """The PRICE stage of one worker."""

    name: ClassVar[str] = "price"
    reads: ClassVar[tuple[str, ...]] = (topics.EVENTS,)
    writes: ClassVar[tuple[str, ...]] = (topics.PRICED, topics.DLQ, topics.PRICES)
    own_position: ClassVar[bool] = False

    def __init__(
        self,
        line: Line,
        kernel: Pricing,
        quarantine: Quarantine | None = None,
        floods: RejectFloods | None = None,
        mark_s: float | None = None,
    ) -> None:
        self._line, self._settings, self._kernel = line, line.settings, kernel
        self._quarantine, self._floods, self._mark_s = quarantine, floods, mark_s
        self._unmarked: set[int] = set()
        self._marked: dict[int, float] = {}
        self._targets, self._runtime = line.layout.priced, line.runtime
        self._boot = line.runtime.new_id()
        self.batching = Batching(line.settings.price_batch, linger_s=LINGER_S).within_bytes()
        self._counts: Counter[str] = Counter()
        self._ticked = self._reported = self._refreshed = 0.0
        self._asked: tuple[int, asyncio.Task[set[TP]]] | None = None
        self._published = False
        self._source = source_id_header(line.log_id(topics.EVENTS))

    @classmethod
    def on(cls, line: Line) -> Self:
        """Build it with the price book of the settings."""
        fx = RateFile(line.settings.fx_file)
        kernel = PriceKernel(load(line.settings), fx)
        metrics.BOOK_INFO.labels(kernel.book_id).set(1)
        runtime = line.runtime
        quarantine = Quarantine(
            runtime.new_id(), line.committed, line.commit_noted, runtime.monotonic, Sandbox(line.layout.priced)
        )
        return cls(line, kernel, quarantine, RejectFloods(), MARK_S)

    async def assigned(self, partitions: set[TP]) -> Mapping[TP, int]:
        """Note the start; it begins where the group has committed."""
        return {} if self._quarantine is None else await self._quarantine.begin(partitions)

    async def lost(self, loss: Loss) -> None:
        """Nothing more: what is gone is declared."""

    async def leaving(self) -> None:
        """Take the note of the start back: who leaves in order has not died."""
        if self._quarantine is not None:
            await self._quarantine.leave()

    def commit_note(self, tp: TP) -> str:
        """Return the note of the start, until it is survived."""
        return "" if self._quarantine is None else self._quarantine.metadata(tp)

    async def step(self, deliveries: Sequence[Delivery]) -> None:
        """Price every record of the batch, and return when dead letters and rows are acknowledged."""
        ordered = sorted(deliveries, key=lambda delivery: (delivery.partition, delivery.offset))
        batches = [delivery.value for delivery in ordered]
        topic = self._settings.topic(topics.EVENTS)
        killers = await self._quarantine.killers(topic, batches) if self._quarantine is not None else None
        priced = self._kernel.price(batches, killers) if killers else self._kernel.price(batches)
        await self._send_dead_letters(priced)
        if self._floods is not None:
            await self._tell_letters(priced)
        parts = priced.blocks(self._targets, self._kernel.book_id, self._boot)
        await asyncio.gather(*(self._send_in_turn(target, records) for target, records in parts.items()))
        self._unmarked |= parts.keys()
        self._count(batches, priced)
        if self._floods is not None:
            await self._tell_floods(self._floods, batches, priced)

    async def _tell_floods(self, floods: RejectFloods, batches: Sequence[Sequence[Record]], priced: Priced) -> None:
        begin = 0
        for batch in batches:
            end = begin + len(batch)
            rejects = [reject.position for reject in priced.rejects if begin <= reject.position < end]
            alert = floods.add(batch[0].partition, begin, len(batch), rejects, batch[-1].timestamp)
            if alert is not None:
                await self._line.incidents.say(alert)
            begin = end

    async def _send_in_turn(self, target: int, records: Sequence[Block]) -> None:
        topic = self._settings.topic(topics.PRICED)
        for record in records:
            await self._line.send(topic, target, None, record.value, [*record.headers, *self._source])

    async def _send_dead_letters(self, priced: Priced) -> None:
        topic = self._settings.topic(topics.DLQ)
        letters = [(priced.records[reject.position], reject) for reject in priced.rejects]
        await asyncio.gather(
            *(self._line.send(topic, record.partition, *_letter(record, reject)) for record, reject in letters)
        )

    async def _tell_letters(self, priced: Priced) -> None:
        for reason, place in {reject.reason: reject.position for reject in reversed(priced.rejects)}.items():
            alert = letter_alert(self.name, topics.EVENTS, reason, priced.records[place])
            await self._line.incidents.say(alert)

    async def idle(self, now: float) -> None:
        """Publish the price book, and again with new exchange rates; tick every second, report every minute."""
        if now >= self._refreshed + REFRESH_S:
            self._refreshed = now
            self._published = self._published and not self._kernel.refresh()
        if not self._published and TP(self._settings.topic(topics.EVENTS), 0) in self._line.assignment():
            self._published = True
            key, value = self._kernel.document()
            await self._line.send(self._settings.topic(topics.PRICES), 0, key, value, [])
        await self._mark(now)
        await self._tick(now)
        if now >= self._reported + REPORT_S:
            self._reported = now
            if self._counts:
                log.info("%s", ", ".join(f"{name} {count}" for name, count in sorted(self._counts.items())))
                self._counts.clear()

    async def _mark(self, now: float) -> None:
        """Let WATCH judge what has come: a tick that moves no clock is a barrier, and none waits for those that do."""
        if self._mark_s is None:
            return
        due = {target for target in self._unmarked if now >= self._marked.get(target, 0.0) + self._mark_s}
        if not due:
            return
        self._unmarked -= due
        self._marked |= dict.fromkeys(due, now)
        value, headers = tick_record({})
        topic = self._settings.topic(topics.PRICED)
        await asyncio.gather(*(self._line.send(topic, target, None, value, headers) for target in due))

    async def _tick(self, now: float) -> None:
        """Tell every target which source partitions have nothing waiting, so that quiet ones move on.

        The broker answers behind the fetch that waits for data, up to 1.5 s later: batches go on meanwhile.
        """
        if self._asked is None:
            if now >= self._ticked + TICK_S:
                self._ticked = now
                self._asked = int(self._runtime.time() * 1000), asyncio.create_task(self._line.heads())
            return
        at_ms, heads = self._asked
        if not heads.done():
            return
        self._asked = None
        clocks = {tp.partition: at_ms for tp in heads.result()}
        if not clocks:
            return
        value, headers = tick_record(clocks)
        topic = self._settings.topic(topics.PRICED)
        await asyncio.gather(*(self._line.send(topic, target, None, value, headers) for target in range(self._targets)))

    def _count(self, batches: Sequence[Sequence[Record]], priced: Priced) -> None:
        self._counts["records"] += len(priced.records)
        self._counts["accepted"] += priced.accepted
        self._counts.update(f"rejected {reject.reason}" for reject in priced.rejects)
        if priced.unpriced:
            self._counts["unpriced"] += priced.unpriced
        records: Counter[int] = Counter()
        for batch in batches:
            records[batch[0].partition] += len(batch)
        metrics.priced(records, priced.rejects, priced.unpriced)


def run(settings: Settings) -> int:
    """Run the PRICE worker until it is told to stop; return the exit code. Raises `BrokerError` before it starts."""
    return run_stage(settings, Price)
