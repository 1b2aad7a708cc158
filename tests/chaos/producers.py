"""Live traffic: nine organisations, four encodings, resends, late calls and poison; acknowledged or sent again.

Two kinds of producer: aiokafka with acks=all, which sends a record again until it is acknowledged, and for one
organisation the project's own client, whose `record()` must never make its caller wait, whatever is broken.
"""

import asyncio
import random
import time
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from tests.chaos.manifest import CLIENT_ORG, ORGS, Call, Manifest, draw, wire
from tests.usage_rows import as_json, avro, cloudevent, confluent
from tollmeter import UsageProducer
from tollmeter.schemas import codec, topics
from tollmeter.settings import Settings

ENCODINGS: tuple[Callable[[dict[str, Any]], bytes], ...] = (avro, avro, confluent, as_json, cloudevent)
TICK_S = 0.05
RESENT, POISONED = 0.03, 0.01
PARTITIONS = 4


def poison(rng: random.Random, good: bytes) -> bytes:
    """Return a record that PRICE must refuse."""
    return rng.choice(
        [
            rng.randbytes(rng.randint(5, 60)),
            b"",
            b"{}",
            good[: len(good) // 2],
            good + b"x",
            codec.SINGLE_OBJECT_HEADER[:2] + rng.randbytes(8) + good[10:],
            b'{"event_id":"\xff"}',
        ]
    )


def encoded(call: Call, rng: random.Random) -> bytes:
    """Return the bytes of an event in one of the formats that producers use."""
    fields = {**codec.DEFAULTS, "event_id": call.event_id, "occurred_at": call.at_us, **wire(call)}
    return rng.choice(ENCODINGS)(fields)


class Traffic:
    """Sends while `on`; `settle` returns when everything handed over is acknowledged."""

    def __init__(self, settings: Settings, manifest: Manifest, rate: int, seed: int, spool: Path) -> None:
        self._settings, self._manifest, self._rate = settings, manifest, rate
        self._rng = random.Random(f"traffic-{seed}")
        self._spool = spool
        self._recent: deque[bytes] = deque(maxlen=2_000)
        self._pending: set[asyncio.Task[None]] = set()
        self.on = True
        self.retries = 0
        self.record_s: list[float] = []
        self.refused = 0

    async def run(self) -> None:
        """Send until cancelled."""
        self._client = UsageProducer(settings=self._settings, service="chaos", spool_dir=self._spool)
        self._producer = AIOKafkaProducer(
            **self._settings.kafka_options(), acks="all", enable_idempotence=True, linger_ms=5
        )
        await self._producer.start()
        due, before = 0.0, time.monotonic()
        try:
            while True:
                await asyncio.sleep(TICK_S)
                now = time.monotonic()
                due += (now - before) * self._rate if self.on else 0.0
                before = now
                while due >= 1 and self.on:
                    due -= 1
                    self._one()
                due = min(due, float(self._rate))
        finally:
            await self._producer.stop()
            await asyncio.to_thread(self._client.close)

    def _one(self) -> None:
        rng = self._rng
        call = draw(rng, int(time.time() * 1e6), rng.choice(ORGS))
        if call.org == CLIENT_ORG:
            self._record(call)
            return
        value = encoded(call, rng)
        self._recent.append(value)
        self._deliver(value, call)
        if rng.random() < RESENT:
            self._manifest.resends += 1
            self._deliver(rng.choice(self._recent), None)
        if rng.random() < POISONED:
            self._deliver(poison(rng, value), None, poisoned=True)

    def _record(self, call: Call) -> None:
        at = datetime.fromtimestamp(call.at_us // 1_000_000, tz=UTC).replace(microsecond=call.at_us % 1_000_000)
        started = time.perf_counter()
        event_id = self._client.record(event_id=call.event_id, occurred_at=at, **wire(call))
        self.record_s.append(time.perf_counter() - started)
        if event_id:
            self._manifest.add(call, time.monotonic())
        else:
            self.refused += 1

    def _deliver(self, value: bytes, call: Call | None, *, poisoned: bool = False) -> None:
        task = asyncio.create_task(self._until_acknowledged(value, self._rng.randrange(PARTITIONS), call, poisoned))
        self._pending.add(task)
        task.add_done_callback(self._pending.discard)

    async def _until_acknowledged(self, value: bytes, partition: int, call: Call | None, poisoned: bool) -> None:
        topic = self._settings.topic(topics.EVENTS)
        while True:
            try:
                meta = await self._producer.send_and_wait(topic, value, partition=partition)
            except KafkaError:  # perhaps it was written all the same: then this becomes a resend
                self.retries += 1
                await asyncio.sleep(0.2)
                continue
            if call is not None:
                self._manifest.add(call, time.monotonic())
            elif poisoned:
                with self._manifest.lock:
                    self._manifest.poison[meta.partition, meta.offset] = value
            return

    async def settle(self, patience_s: float) -> bool:
        """Wait until nothing is on its way; False when something still is."""
        until = time.monotonic() + patience_s
        while time.monotonic() < until:
            counters = self._client.counters
            if not self._pending and not counters.queued and not counters.on_disk and await self._client.aflush(1.0):
                return True
            await asyncio.sleep(0.05)
        return False

    @property
    def spooled(self) -> int:
        """Events that the client has ever put on its disk."""
        return int(self._client.counters.spooled)

    @property
    def dropped(self) -> int:
        """Events that the client gave up."""
        counters = self._client.counters
        return int(counters.dropped + counters.invalid)
