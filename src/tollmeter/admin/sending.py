"""Corrections of many slices over one connection: a slice is on its way while the next one is worked out, never two.

The parts of a slice go at once: nothing in it moves from one organisation to another. Whoever dies in between has sent
some of them; the same command completes the rest.
"""

import asyncio
import threading
import uuid
from collections.abc import Callable, Coroutine, Iterator, Sequence
from concurrent.futures import Future
from contextlib import AsyncExitStack, contextmanager
from typing import Any, TypeAlias

from tollmeter.admin.corrections import saying
from tollmeter.broker.client import kafka_producer
from tollmeter.broker.layout import Layout, read_layout
from tollmeter.broker.make import Producer
from tollmeter.schemas import topics
from tollmeter.settings import Settings
from tollmeter.streams.rules.windows.amend import Part, records

Send = Callable[[list[Part]], None]
_Run: TypeAlias = Callable[[Coroutine[Any, Any, None]], Future[None]]


@contextmanager
def sending(settings: Settings, reason: str) -> Iterator[Send]:
    """Give what sends the parts of a slice; all are acknowledged by all brokers when the `with` ends.

    It connects with the first slice. `CorrectionError` rises from a later call or from the end.
    """
    with _loop() as run:
        line = _Line(settings, reason)
        on_way: list[Future[None]] = []

        def arrived() -> None:
            with saying(settings):
                while on_way:
                    on_way.pop().result()

        def send(parts: list[Part]) -> None:
            arrived()
            on_way.append(run(line.send(parts)))

        try:
            yield send
            arrived()
        finally:
            run(line.close()).result()


@contextmanager
def _loop() -> Iterator[_Run]:
    """Give what starts work on an event loop of its own, which goes on between two slices."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="corrections", daemon=True)
    thread.start()
    try:
        yield lambda work: asyncio.run_coroutine_threadsafe(work, loop)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


class _Line:
    """The connection, made with the first slice."""

    def __init__(self, settings: Settings, reason: str) -> None:
        self._settings, self._reason = settings, reason
        self._stack = AsyncExitStack()
        self._open: tuple[Producer, Layout] | None = None

    async def send(self, parts: Sequence[Part]) -> None:
        """Return when every record is acknowledged. Raises `KafkaError`, `OSError`, `ProvisionError`."""
        if self._open is None:
            layout = await read_layout(self._settings)
            self._open = await self._stack.enter_async_context(kafka_producer(self._settings)), layout
        producer, layout = self._open
        topic, correction_id = self._settings.topic(topics.PRICED), uuid.uuid4().hex
        sent = []
        for part in parts:
            partition = topics.org_partition(part.org_id, layout.priced)
            for value, headers in await asyncio.to_thread(records, part, correction_id, self._reason):
                sent.append(await producer.send(topic, value, partition=partition, headers=headers))
        await asyncio.gather(*sent)

    async def close(self) -> None:
        """Close the connection, if there is one."""
        await self._stack.aclose()
