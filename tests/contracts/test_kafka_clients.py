"""A start that is cut short leaves no connection open, whatever kind of client it was of and however far it came.

What was written in a transaction that was aborted is read by no kind.
"""

import asyncio
import gc
import warnings
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer, TopicPartition

from tollmeter.broker import make
from tollmeter.schemas import topics
from tollmeter.settings import Settings
from tollmeter.streams.notify.leader import OneInCharge

pytestmark = pytest.mark.stack

KINDS: dict[str, Callable[[Settings], Any]] = {
    "admin": make.admin,
    "reader": make.reader,
    "member": lambda settings: make.member(settings, "notify", [OneInCharge]),
    "producer": make.producer,
    "batch_producer": make.batch_producer,
}


class Relay:
    """Stands before the broker, hands so many of its answers over and keeps the next one to itself."""

    def __init__(self, settings: Settings, answers: int) -> None:
        host, _, port = settings.kafka.rpartition(":")
        self._place, self._left = (host, int(port)), answers
        self.withheld, self.ended = asyncio.Event(), asyncio.Event()

    async def listen(self) -> str:
        self._server = await asyncio.start_server(self._pass_on, "127.0.0.1", 0)
        return f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def close(self) -> None:
        self._server.close()
        await self._server.wait_closed()

    async def _pass_on(self, client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        broker, to_broker = await asyncio.open_connection(*self._place)
        back = asyncio.create_task(self._answer(broker, to_client))
        while data := await client.read(1 << 16):
            to_broker.write(data)
        back.cancel()
        for writer in (to_broker, to_client):
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()
        self.ended.set()

    async def _answer(self, broker: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        while True:
            size = await broker.readexactly(4)
            body = await broker.readexactly(int.from_bytes(size, "big"))
            if not self._left:
                self.withheld.set()
                return
            self._left -= 1
            to_client.write(size + body)


async def cut_short(settings: Settings, kind: str, answers: int) -> None:
    relay = Relay(settings, answers)
    client = KINDS[kind](settings.model_copy(update={"kafka": await relay.listen()}))
    start = asyncio.create_task(make.begin(client))
    await relay.withheld.wait()
    start.cancel()
    with pytest.raises(asyncio.CancelledError):
        await start
    await (client.close if kind == "admin" else client.stop)()
    await relay.ended.wait()
    await relay.close()


@pytest.mark.parametrize("answers", [0, 1], ids=["versions", "metadata"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_start_that_is_cut_short_closes_its_connection(line_settings: Settings, kind: str, answers: int) -> None:
    gc.collect()  # what other tests left open is not this one's
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        asyncio.run(cut_short(line_settings, kind, answers))
        gc.collect()
    assert [str(one.message) for one in said if issubclass(one.category, ResourceWarning)] == []


def test_the_next_start_of_the_same_kind_connects(line_settings: Settings) -> None:
    async def connected(kind: str) -> None:
        client = KINDS[kind](line_settings)
        try:
            await make.begin(client)
        finally:
            await (client.close if kind == "admin" else client.stop)()

    for kind in KINDS:
        asyncio.run(connected(kind))


@pytest.mark.parametrize("kind", ["reader", "member"])
def test_what_was_aborted_is_read_by_nobody(line_settings: Settings, kind: str) -> None:
    topic = line_settings.topic(topics.ALERTS)

    async def values() -> list[bytes]:
        options = line_settings.kafka_options()
        async with AIOKafkaProducer(**options, transactional_id=f"{line_settings.topic_prefix}{kind}") as producer:
            for value in (b"aborted", b"kept"):
                await producer.begin_transaction()
                await producer.send_and_wait(topic, value, partition=0)
                await (producer.abort_transaction if value == b"aborted" else producer.commit_transaction)()
        consumer = KINDS[kind](line_settings)
        try:
            await make.begin(consumer)
            if kind == "member":
                consumer.subscribe([topic])
            else:
                consumer.assign([TopicPartition(topic, 0)])
            return [(await consumer.getone()).value]
        finally:
            await consumer.stop()

    assert asyncio.run(values()) == [b"kept"]
