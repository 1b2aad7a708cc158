"""PRICE: source records to priced rows. Dead letters and rows are acknowledged by the broker before anything is acked.

To each target there is one unacknowledged record at a time. With two in flight the first could fail for good and the
second land: WATCH's high water would have passed the first, and its rows would be skipped for ever.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import polars as pl
from faust.types import TP

from tollmeter.broker.layout import stored_layout
from tollmeter.broker.topic_ids import id_of
from tollmeter.schemas import topics
from tollmeter.schemas.control import Headers, tick_record
from tollmeter.schemas.dead_letter import QUARANTINED, dead_letter_headers, letter_value
from tollmeter.schemas.priced import H_SOURCE_ID
from tollmeter.settings import Settings
from tollmeter.streams.engine import metrics
from tollmeter.streams.engine.app import Sender, StageApp, build_app, preflight
from tollmeter.streams.engine.app import run as run_app
from tollmeter.streams.engine.loop import BatchLoop, within_bytes
from tollmeter.streams.engine.runtime import RUNTIME, Runtime
from tollmeter.streams.price.book.book import PriceBook, load
from tollmeter.streams.price.book.publish import document
from tollmeter.streams.price.quarantine import Quarantine
from tollmeter.streams.price.sandbox import Place, Sandbox
from tollmeter.streams.rules.events.decode_avro import Reject, decode
from tollmeter.streams.rules.events.reject_flood import RejectFloods
from tollmeter.streams.rules.events.validate import FLAGS, validate
from tollmeter.streams.rules.records.encode import (
    Block,
    Source,
    blocks,
    by_target,
    encoded,
    event_columns,
    priced_columns,
)

log = logging.getLogger("tollmeter.price")

STAGE = "price"
TICK_S = 1.0
REPORT_S = 60.0
LINGER_S = 0.05
"""A batch over a few events costs as much as one over hundreds: at 1,000 a second this saves a third of a core."""


_NO_KILLERS: Mapping[Place, str] = {}


class Priced:
    """What one batch made of its records: rows in contract columns, dead letters, and what was read of each source."""

    def __init__(
        self, batches: Sequence[Sequence[Any]], book: PriceBook, killers: Mapping[Place, str] = _NO_KILLERS
    ) -> None:
        """Price batches of source records, each of one partition and in offset order; `killers` are not decoded."""
        self.records = records = [record for batch in batches for record in batch]
        values, aside = _set_aside(records, killers)
        decoded = decode(values)
        good = validate(decoded.frame, decoded.index)
        self.rejects: list[Reject] = [aside.get(reject.position, reject) for reject in decoded.rejects] + good.rejects
        at = [records[position] for position in good.index]
        events = event_columns(
            good.frame,
            pl.Series("src_partition", [record.partition for record in at], dtype=pl.UInt16),
            pl.Series("src_offset", [record.offset for record in at], dtype=pl.Int64),
            pl.Series("received_at", [record.timestamp for record in at], dtype=pl.Int64),
        ).with_columns(FLAGS)
        self.rows = priced_columns(events, book.price(events))
        self.sources = self._sources(batches)

    def _sources(self, batches: Sequence[Sequence[Any]]) -> list[Source]:
        rejected = Counter(self.records[reject.position].partition for reject in self.rejects)
        sources: dict[int, Source] = {}
        for batch in batches:
            first, last = batch[0], batch[-1]
            known = sources.get(first.partition)
            if known is None:
                known = Source(first.partition, first.offset, last.offset, 0, rejected[first.partition])
            sources[first.partition] = known._replace(last_offset=last.offset, records=known.records + len(batch))
        return list(sources.values())

    def blocks(self, partitions: int, book_id: str, boot: str) -> dict[int, list[Block]]:
        """Return the records to send to each target. A batch without rows still says what it has read, in target 0."""
        rows = encoded(self.rows)
        targets = by_target(rows, partitions) if rows.height else {0: rows}
        return {target: blocks(rows, self.sources, book_id, boot) for target, rows in targets.items()}

    @property
    def accepted(self) -> int:
        return self.rows.height

    @property
    def unpriced(self) -> int:
        return int(self.rows["cost_nano"].null_count())


def _set_aside(records: Sequence[Any], killers: Mapping[Place, str]) -> tuple[list[bytes | None], dict[int, Reject]]:
    """Return the values to decode, and by position what is said instead of those that must not be."""
    values = [record.value for record in records]
    if not killers:
        return values, {}
    aside = {
        at: Reject(at, QUARANTINED, killers[place])
        for at, record in enumerate(records)
        if (place := (record.partition, record.offset)) in killers
    }
    for at in aside:
        values[at] = None
    return values, aside


class Pass(Protocol):
    """What PRICE needs of one batch; `Priced` by whole columns."""

    records: list[Any]
    rejects: list[Reject]

    @property
    def accepted(self) -> int: ...
    @property
    def unpriced(self) -> int: ...
    def blocks(self, partitions: int, book_id: str, boot: str) -> dict[int, list[Block]]: ...


class PriceKernel:
    """Prices a batch by whole columns, under one book for the life of a worker."""

    def __init__(self, book: PriceBook) -> None:
        self._book = book
        self.book_id = book.id

    def price(self, batches: Sequence[Sequence[Any]], killers: Mapping[Place, str] = _NO_KILLERS) -> Pass:
        """Price batches of source records, each of one partition and in offset order; `killers` are not decoded."""
        return Priced(batches, self._book, killers)

    def document(self) -> tuple[bytes, bytes]:
        """Return the book as key and value of its record."""
        return document(self._book)


class Price:
    """The PRICE stage of one worker."""

    def __init__(
        self,
        settings: Settings,
        app: StageApp,
        sender: Sender,
        kernel: PriceKernel,
        targets: int,
        runtime: Runtime = RUNTIME,
    ) -> None:
        self._settings, self._app, self._sender, self._kernel, self._targets = settings, app, sender, kernel, targets
        self._runtime = runtime
        self._boot = runtime.new_id()
        self._counts: Counter[str] = Counter()
        self._ticked = self._reported = 0.0
        self._asked: tuple[int, asyncio.Task[set[TP]]] | None = None
        self._published = False
        self._source: Headers = []
        self.quarantine: Quarantine | None = None
        self.floods: RejectFloods | None = None

    def of_source(self, topic_id: str) -> None:
        """Write the id of the source topic on every record: another topic under its name counts from 0 again."""
        self._source = [(H_SOURCE_ID, topic_id.encode())] if topic_id else []

    async def step(self, events: Sequence[Any]) -> None:
        """Price every record of the batch, and return when dead letters and rows are acknowledged."""
        ordered = sorted(events, key=lambda event: (event.message.partition, event.message.offset))
        batches = [event.value for event in ordered]
        topic = self._settings.topic(topics.EVENTS)
        killers = await self.quarantine.killers(topic, batches) if self.quarantine is not None else None
        pass_ = self._kernel.price(batches, killers) if killers else self._kernel.price(batches)
        await self._send_dead_letters(pass_)
        parts = pass_.blocks(self._targets, self._kernel.book_id, self._boot)
        await asyncio.gather(*(self._send_in_turn(target, records) for target, records in parts.items()))
        self._count(pass_)
        if self.floods is not None:
            await self._tell_floods(self.floods, batches, pass_)

    async def _tell_floods(self, floods: RejectFloods, batches: Sequence[Sequence[Any]], pass_: Pass) -> None:
        begin = 0
        for batch in batches:
            end = begin + len(batch)
            rejects = [reject.position for reject in pass_.rejects if begin <= reject.position < end]
            alert = floods.add(batch[0].partition, begin, len(batch), rejects, batch[-1].timestamp)
            if alert is not None:
                await self._app.incidents.say(alert)
            begin = end

    async def _send_in_turn(self, target: int, records: Sequence[Block]) -> None:
        topic = self._settings.topic(topics.PRICED)
        for record in records:
            await self._sender.send(topic, target, None, record.value, [*record.headers, *self._source])

    async def _send_dead_letters(self, pass_: Pass) -> None:
        topic = self._settings.topic(topics.DLQ)
        letters = [(reject, pass_.records[reject.position]) for reject in pass_.rejects]
        await asyncio.gather(
            *(
                self._sender.send(
                    topic,
                    record.partition,
                    record.key,
                    letter_value(None if reject.reason == "secret" else record.value),  # no key rests there for a month
                    dead_letter_headers(STAGE, reject.reason, reject.detail, record, record.headers),
                )
                for reject, record in letters
            )
        )

    async def idle(self, now: float) -> None:
        """Publish the price book once, tick every second, report every minute."""
        if not self._published and TP(self._settings.topic(topics.EVENTS), 0) in self._app.consumer.assignment():
            self._published = True
            key, value = self._kernel.document()
            await self._sender.send(self._settings.topic(topics.PRICES), 0, key, value, [])
        await self._tick(now)
        if now >= self._reported + REPORT_S:
            self._reported = now
            if self._counts:
                log.info("%s", ", ".join(f"{name} {count}" for name, count in sorted(self._counts.items())))
                self._counts.clear()

    async def _tick(self, now: float) -> None:
        """Tell every target which source partitions have nothing waiting, so that quiet ones move on.

        The broker answers behind the fetch that waits for data, up to 1.5 s later: batches go on meanwhile.
        """
        if self._asked is None:
            if now >= self._ticked + TICK_S:
                self._ticked = now
                self._asked = int(self._runtime.time() * 1000), asyncio.create_task(self._app.consumer.heads())
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
        await asyncio.gather(
            *(self._sender.send(topic, target, None, value, headers) for target in range(self._targets))
        )

    def _count(self, pass_: Pass) -> None:
        self._counts["records"] += len(pass_.records)
        self._counts["accepted"] += pass_.accepted
        self._counts.update(f"rejected {reject.reason}" for reject in pass_.rejects)
        if pass_.unpriced:
            self._counts["unpriced"] += pass_.unpriced
        metrics.priced(Counter(record.partition for record in pass_.records), pass_.rejects, pass_.unpriced)


def watch_starts(app: StageApp, sandbox: Sandbox) -> Quarantine:
    """Have the starts of an app noted where its group commits."""

    async def read(assigned: set[TP]) -> dict[TP, tuple[int, str]]:
        return dict(await app.consumer.committed(assigned))

    async def write(committed: Mapping[TP, tuple[int, str]]) -> None:
        await app.consumer.commit_noted(committed)

    quarantine = Quarantine(RUNTIME.new_id(), read, write, RUNTIME.monotonic, sandbox)
    app.start_positions, app.commit_note = quarantine.begin, quarantine.metadata
    app.before_leaving = quarantine.leave
    return quarantine


def run(settings: Settings) -> int:
    """Run the PRICE worker until it is told to stop; return the exit code. Raises `BrokerError` before it starts."""
    asyncio.run(preflight(settings, [topics.EVENTS, topics.PRICED, topics.DLQ, topics.PRICES]))
    layout = asyncio.run(stored_layout(settings))
    app = build_app(settings, STAGE, [topics.EVENTS], layout)
    kernel = PriceKernel(load(settings))
    price = Price(settings, app, Sender(app), kernel, layout.priced)
    source_id = asyncio.run(id_of(settings, topics.EVENTS))
    price.of_source(source_id)
    app.incidents.know(settings.topic(topics.EVENTS), source_id)
    metrics.BOOK_INFO.labels(kernel.book_id).set(1)
    price.floods = RejectFloods()
    price.quarantine = watch_starts(app, Sandbox(layout.priced))
    limit = settings.price_batch
    weigh = within_bytes(lambda event: len(event.value), limit)
    BatchLoop(app, price.step, limit=limit, weigh=weigh, linger_s=LINGER_S, idle=price.idle)
    return run_app(app)
