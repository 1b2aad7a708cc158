"""Keys and tokens of the registry, from memory: a tail of `usage.registry` that goes on with what it knows.

What is known stays known while Kafka is away; ClickHouse is not asked. A row that cannot be read is taken for gone: a
key of a newer version lets nobody in.
"""

import asyncio
import logging
import time
from contextlib import suppress
from datetime import UTC, datetime

from aiokafka import TopicPartition
from aiokafka.errors import KafkaError

from tollmeter.admin.secret import SecretError, secret_of
from tollmeter.broker import registry
from tollmeter.broker.client import kafka_consumer, kafka_producer
from tollmeter.broker.make import TAIL_MS, Consumer
from tollmeter.schemas import topics
from tollmeter.schemas.registry import KeyUse, ServerKey, TrackingToken, digest
from tollmeter.server.auth import Caller
from tollmeter.server.auth import TrackingToken as Token
from tollmeter.settings import Settings

log = logging.getLogger("tollmeter.server")

FIRST_S = 5.0
"""So long a server that starts waits for the registry before it answers without it."""
TICK_MS = 1_000
RETRY_S = 1.0
USE_EVERY_S = 3_600.0
CATCH_UP_S = 5.0


class Registry:
    """Knows keys and tokens as `auth.Directory` asks for them. `start` and `stop` are the server's."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._rows: registry.Rows = {}
        self._keys: dict[str, ServerKey] = {}
        self._tokens: dict[str, TrackingToken] = {}
        self._used: dict[str, float] = {}
        self._unsaid: set[str] = set()
        self._next = 0
        self._task: asyncio.Task[None] | None = None
        self._moved = asyncio.Event()
        self.loaded = False
        """Whether the topic has been read to where it ended when the tail began."""
        self.problem = ""
        try:
            self._secret = secret_of(settings)
        except SecretError as error:
            self._secret = b""
            log.warning("keys of the registry are not known, and who signs in is to this process alone: %s", error)

    # -- auth.Directory ------------------------------------------------------------------------------------------------

    def caller(self, secret: str) -> Caller | None:
        """Return whom a key belongs to; None for one that is unknown, switched off, or was rotated long enough ago."""
        if not self._secret or not secret:
            return None
        presented = digest(self._secret, secret)
        key = self._keys.get(presented)
        if key is None or not key.active:
            return None
        if presented != key.digest and (key.earlier_until is None or key.earlier_until.timestamp() <= time.time()):
            return None
        self._note_use(key.id)
        return Caller(key.id, key.role, key.org_id, key.may_set_identity)

    def holds(self, key_id: str, role: str, org_id: str) -> bool:
        """Tell whether a key is still on, with this role and organisation; so is one while nothing is known yet."""
        found = [key for key in self._keys.values() if key.id == key_id]
        if not found:
            return not self.loaded
        return any(key.active and (key.role, key.org_id) == (role, org_id) for key in found)

    def token(self, value: str) -> Token | None:
        """Return a tracking token, also one that is switched off; None for one that nobody made."""
        found = self._tokens.get(value)
        return None if found is None else Token(found.id, found.name, found.value, found.org_id, found.active)

    @property
    def active_tokens(self) -> int | None:
        """Return how many tokens are on; None while that is not known."""
        return sum(token.active for token in self._tokens.values()) if self.loaded else None

    # -- the tail ------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Begin to follow the topic; return when what it held is known, or Kafka did not answer in time."""
        self._task = asyncio.create_task(self._run())
        with suppress(TimeoutError):
            async with asyncio.timeout(FIRST_S):
                while not self.loaded:
                    await self._wait()

    async def stop(self) -> None:
        """End, and say what was used since the last time."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
        with suppress(KafkaError, OSError, TimeoutError):
            async with asyncio.timeout(RETRY_S):
                await self._say_uses()

    async def catch_up(self) -> None:
        """Return when this server knows all that is on the topic now, or after a few seconds: others know it later."""
        with suppress(TimeoutError, KafkaError, OSError):
            async with asyncio.timeout(CATCH_UP_S), kafka_consumer(self._settings) as consumer:
                place = self._place()
                end = (await consumer.end_offsets([place]))[place]
                while self._next < end:
                    await self._wait()

    async def _wait(self) -> None:
        self._moved.clear()
        await self._moved.wait()

    async def _run(self) -> None:
        while True:
            try:
                async with kafka_consumer(self._settings, waits_ms=TAIL_MS) as consumer:
                    await self._follow(consumer)
            except (KafkaError, OSError) as error:
                if not self.problem:
                    log.warning("the registry is not heard of: %s", type(error).__name__)
                self.problem = f"the registry is not heard of ({type(error).__name__}): keys are as they were"
            await asyncio.sleep(RETRY_S)

    async def _follow(self, consumer: Consumer) -> None:
        place = self._place()
        if place.topic not in await consumer.topics():
            self.problem = f"topic {place.topic} does not exist: run tollmeter setup"
            return
        begin, end = (await consumer.beginning_offsets([place]))[place], (await consumer.end_offsets([place]))[place]
        consumer.assign([place])
        if not begin <= self._next <= end:  # a topic made anew: what it does not say is gone
            self._next, self._rows = begin, {}
        consumer.seek(place, self._next)
        while True:
            records = (await consumer.getmany(place, timeout_ms=TICK_MS)).get(place, [])
            for record in records:
                self._take(record.key, record.value)
            if records:
                self._index()
            self._next = await consumer.position(place)
            self.loaded, self.problem = self.loaded or self._next >= end, ""
            self._moved.set()
            if self._unsaid:
                await self._say_uses()

    def _take(self, key: bytes | None, value: bytes | None) -> None:
        try:
            registry.apply(self._rows, key, value)
        except ValueError as error:
            self._rows.pop((key or b"").decode("utf-8", "replace"), None)
            log.warning("a row of the registry cannot be read and is taken for gone: %s", str(error)[:200])

    def _index(self) -> None:
        keys, tokens = {}, {}
        for row in self._rows.values():
            if isinstance(row, ServerKey):
                keys[row.digest] = row
                if row.earlier_digest is not None:
                    keys[row.earlier_digest] = row
            elif isinstance(row, TrackingToken):
                tokens[row.value] = row
            elif isinstance(row, KeyUse):
                self._used[row.id] = max(self._used.get(row.id, 0.0), row.at.timestamp())
        self._keys, self._tokens = keys, tokens

    def _note_use(self, id_: str) -> None:
        now = time.time()
        if now >= self._used.get(id_, 0.0) + USE_EVERY_S:
            self._used[id_] = now
            self._unsaid.add(id_)

    async def _say_uses(self) -> None:
        """Write when keys were used; what cannot be written now is written later."""
        uses = [KeyUse(id=id_, at=datetime.fromtimestamp(self._used[id_], UTC)) for id_ in sorted(self._unsaid)]
        if not uses:
            return
        async with kafka_producer(self._settings) as producer:
            for use in uses:
                value = use.model_dump_json().encode()
                await producer.send_and_wait(self._place().topic, value, key=use.key.encode(), partition=0)
                self._unsaid.discard(use.id)

    def _place(self) -> TopicPartition:
        return TopicPartition(self._settings.topic(topics.REGISTRY), 0)
