"""The guard's thread: reads three compacted topics from their beginning and on, and sends beats and alerts.

Everything slow or fallible of a guard happens here. It lets go of the interpreter every few records: checks come first.
"""

import asyncio
import logging
import threading
import time
import uuid
from contextlib import suppress
from typing import Any

from aiokafka import ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError, TopicAuthorizationFailedError

from tollmeter.broker import make
from tollmeter.broker.cluster import NotOursError, require_ours
from tollmeter.broker.make import Consumer, Producer
from tollmeter.producers.client.connection import AwayError, SenderLoop, close_producer, knock, quiet, reason_of
from tollmeter.producers.client.destinations import RateLimited
from tollmeter.producers.client.lookup import Lookup
from tollmeter.producers.guard.alert_queue import AlertQueue
from tollmeter.producers.guard.peers import Peers
from tollmeter.producers.guard.price_cache import PriceCache
from tollmeter.producers.guard.snapshot import Snapshot, Source
from tollmeter.schemas import topics
from tollmeter.schemas.alert import CONTENT_TYPE
from tollmeter.schemas.guards import BEAT_EVERY_S, PREFIX, Beat

log = logging.getLogger("tollmeter.guard")

SOURCES: tuple[tuple[Source, str], ...] = (
    ("policies", topics.POLICIES),
    ("spend", topics.SPEND),
    ("prices", topics.PRICES),
)
CLIENT_ID = "tollmeter-guard"
TAIL_MS = 500
SLICE = 20  # records applied before other threads get a turn at the interpreter
TICK_MS = 200
START_S = 20.0
ANSWER_S = 5.0
CLOSE_S = 2.0
BACKOFF_S = (0.1, 0.2, 0.5, 1.0)  # close() waits for no more than this


class Reader:
    """Keeps one snapshot up to date. `run` is the whole life of its thread."""

    def __init__(self, lookup: Lookup, snapshot: Snapshot, alert_queue: AlertQueue) -> None:
        settings, _ = lookup.now()
        self._lookup, self._cluster = lookup, ""
        self._settings, self._known, self._alert_queue = settings, snapshot, alert_queue
        self._sources = {settings.topic(name): source for source, name in SOURCES}
        self._positions: dict[TopicPartition, int] = {}
        self._peers = Peers(uuid.uuid4().hex[:16], settings.guards, snapshot.clock.wall_ms)
        self._next_beat = 0.0
        self._failures = 0
        self._price_cache = PriceCache(settings)
        self._unreadable, self._mute = RateLimited(), RateLimited()
        self._closing = threading.Event()
        self.ready = threading.Event()
        self.problem = ""

    def close(self) -> None:
        """Ask the thread to end; it does so within `TICK_MS` and a few answers of the broker."""
        self._closing.set()

    def run(self) -> None:
        """Read until closed. Never raises: a fault in here leaves the guard with what it knows, ever more stale."""
        try:
            kept = self._price_cache.load() if self._known.prices is None else None
            if kept is not None:
                self._known.apply("prices", None, kept)
            with asyncio.Runner(loop_factory=SenderLoop) as runner:
                runner.get_loop().set_exception_handler(quiet)
                runner.run(self._main())
        except Exception as error:
            self.problem = f"the guard's reader has stopped ({type(error).__name__})"
            log.exception("the guard's reader has stopped; budgets go stale from now on")

    async def _main(self) -> None:
        while not self._closing.is_set():
            try:
                await self._connect_and_follow()
            except Exception as error:  # aiokafka's own faults too: what is known goes stale, the service goes on
                if not self.problem:
                    log.warning("the guard hears nothing from Kafka at %s: %s", self._settings.kafka, reason_of(error))
                self.problem = reason_of(error)
                await asyncio.sleep(BACKOFF_S[min(self._failures, len(BACKOFF_S) - 1)])
                self._failures += 1

    async def _connect_and_follow(self) -> None:
        settings, why = self._lookup.now()
        if why:
            raise AwayError(why)
        self._settings = settings
        self._sources = {settings.topic(name): source for source, name in SOURCES}
        settings.require_line()
        await knock(settings.kafka)
        consumer = make.reader(settings, waits_ms=TAIL_MS, client_id=CLIENT_ID, foreign=True)
        producer = make.producer(settings, timeout_ms=5_000, client_id=CLIENT_ID, idempotent=False)
        try:
            async with asyncio.timeout(START_S):
                await make.begin(consumer)
                await make.begin(producer)
                await self._check(producer)
                await self._beat(producer)  # before we ask where the topic ends: then we hear all who began before us
                ends = await self._assign(consumer)
            await self._follow(consumer, producer, ends)
            await self._farewell(producer)
        finally:
            await close_producer(producer)
            await _close_consumer(consumer)

    async def _check(self, producer: Producer) -> None:
        """Write nothing to a broker that is not ours; begin anew in another cluster than the last."""
        try:
            cluster = await require_ours(producer, self._settings, self._settings.topic(topics.SPEND))
        except NotOursError as refused:
            raise AwayError(str(refused)) from None
        if cluster != self._cluster:
            self._positions.clear()
        self._cluster = cluster

    async def _assign(self, consumer: Consumer) -> dict[TopicPartition, int]:
        known = await consumer.topics()
        partitions = [TopicPartition(topic, 0) for topic in self._sources]
        for partition in partitions:
            if partition.topic not in known:
                raise AwayError(f"topic {partition.topic} does not exist (run: tollmeter setup)")
        consumer.assign(partitions)
        begins, ends = await consumer.beginning_offsets(partitions), await consumer.end_offsets(partitions)
        for partition in partitions:
            begin, end = begins[partition], ends[partition]
            if self._sources[partition.topic] == "prices":
                begin = max(begin, end - 1)  # the last book is in force, and each is large
            at = self._positions.get(partition, 0)
            consumer.seek(partition, at if begin <= at <= end else begin)
        return dict(ends)

    async def _follow(self, consumer: Consumer, producer: Producer, ends: dict[TopicPartition, int]) -> None:
        live = False
        while not self._closing.is_set():
            batches = await consumer.getmany(timeout_ms=TICK_MS)
            for partition, records in batches.items():
                self._apply(self._sources[partition.topic], records, live)
                self._positions[partition] = records[-1].offset + 1
            if not live:
                positions = [await consumer.position(partition) >= end for partition, end in ends.items()]
                live = all(positions)
                if live:
                    self._known.loaded, self._failures, self.problem = True, 0, ""
                    self.ready.set()
            self._known.accounts.set_guards(self._peers.size)
            self._known.accounts.expire()
            if time.monotonic() >= self._next_beat:
                await self._beat(producer)
            await self._send_alerts(producer)

    def _apply(self, source: Source, records: list[ConsumerRecord[bytes, bytes]], live: bool) -> None:
        if source == "prices":
            records = records[-1:]  # one book is in force
        for start in range(0, len(records), SLICE):
            for record in records[start : start + SLICE]:
                if not self._take(source, record, live):
                    text = "a record of %s cannot be read; what it tells of stays as it was"
                    self._unreadable.warn(text, f"{record.topic} (offset {record.offset})")
                elif source == "prices" and record.value is not None:
                    self._price_cache.save(record.value)
            time.sleep(0)  # lets go of the interpreter lock: the service's threads come first

    def _take(self, source: Source, record: ConsumerRecord[bytes, bytes], live: bool) -> bool:
        if source == "spend" and record.key is not None and record.key.startswith(PREFIX.encode()):
            try:
                self._peers.apply(record.key.decode(), record.value, live)
            except ValueError:
                return False
            return True
        if live and source == "spend":
            self._known.clock.witness(record.timestamp)
        return self._known.apply(source, record.key, record.value)

    async def _beat(self, producer: Producer) -> None:
        """Say that we are at work, and clear away who is long gone. Without the right to write we count by settings.

        Any other failure shows that the broker is gone, which a consumer alone never says.
        """
        self._next_beat = time.monotonic() + BEAT_EVERY_S
        beat = Beat(guard=self._peers.own, at_ms=self._known.clock.wall_ms())
        topic = self._settings.topic(topics.SPEND)
        try:
            async with asyncio.timeout(ANSWER_S):
                await producer.send_and_wait(topic, beat.model_dump_json().encode(), key=beat.key.encode(), partition=0)
                for guard in self._peers.lost():
                    await producer.send_and_wait(topic, None, key=(PREFIX + guard).encode(), partition=0)
        except TopicAuthorizationFailedError as error:
            self._mute.warn("other guards do not hear of this one: %s", reason_of(error))

    async def _farewell(self, producer: Producer) -> None:
        topic, key = self._settings.topic(topics.SPEND), (PREFIX + self._peers.own).encode()
        with suppress(KafkaError, TimeoutError):
            async with asyncio.timeout(CLOSE_S):
                await producer.send_and_wait(topic, None, key=key, partition=0)

    async def _send_alerts(self, producer: Producer) -> None:
        topic = self._settings.topic(topics.ALERTS)
        while (alert := self._alert_queue.first()) is not None:
            place: dict[str, Any] = {}
            if self._known.partitions is not None:
                place["partition"] = topics.org_partition(alert.org_id, self._known.partitions)
            key = f"{alert.org_id}/{alert.scope}/{alert.name}".encode()
            try:
                await producer.send_and_wait(topic, alert.wire(), key=key, headers=CONTENT_TYPE, **place)
            except KafkaError as error:
                self._mute.warn("an alert was not sent, it is tried again: %s", reason_of(error))
                return
            self._alert_queue.sent(alert)


async def _close_consumer(consumer: Consumer) -> None:
    """Close it whole. While the broker is away its own cancelled tasks come out of `stop` as if we were cancelled."""
    for stop in (consumer.stop, consumer._client.close):
        with suppress(Exception, asyncio.CancelledError):
            async with asyncio.timeout(CLOSE_S):
                await stop()
