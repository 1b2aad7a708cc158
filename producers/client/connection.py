"""One connection to the broker: up or gone. Whatever goes wrong with it, it is closed whole and made anew."""

import asyncio
import logging
import random
import socket
import threading
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from aiokafka.errors import KafkaConnectionError

from tollmeter.broker import make
from tollmeter.broker.cluster import NotOursError, require_ours
from tollmeter.broker.make import Producer
from tollmeter.schemas import topics
from tollmeter.settings import Settings

log = logging.getLogger("tollmeter.producer")

CONNECT_S = 10.0
ACKNOWLEDGE_S = 5.0
CLOSE_S = 2.0
TIMEOUT_MS, BACKOFF_MS = 5_000, 250


class AwayError(Exception):
    """The broker cannot be reached or does not answer; the text says why in one line, without secrets."""


class Connection:
    """An idempotent producer (acks=all, lz4) and the topic's partitions, filled one batch after the other."""

    def __init__(self, producer: Producer, topic: str, partitions: Sequence[int], cluster: str) -> None:
        self.cluster = cluster
        self._producer, self._topic, self._partitions = producer, topic, partitions
        # Batches go round the partitions: nothing downstream depends on where an event lands.
        self._turn = random.randrange(len(partitions))

    @classmethod
    async def open(cls, settings: Settings) -> "Connection":
        """Connect, and learn the cluster and the topic's partitions. Raises `AwayError`, also when it is not ours."""
        topic = settings.topic(topics.EVENTS)
        settings.require_line()
        await knock(settings.kafka)
        producer = make.batch_producer(
            settings, timeout_ms=TIMEOUT_MS, backoff_ms=BACKOFF_MS, client_id="tollmeter-producer"
        )
        try:
            async with asyncio.timeout(CONNECT_S):
                await make.begin(producer)
                cluster = await require_ours(producer, settings, topic)
                partitions = sorted(await producer.partitions_for(topic))
        except NotOursError as refused:
            await close_producer(producer)
            raise AwayError(f"{refused}: nothing is sent to it; set TOLLMETER_KAFKA or TOLLMETER_DATA_DIR") from None
        except BaseException as error:
            await close_producer(producer)
            if isinstance(error, Exception):
                raise AwayError(reason_of(error)) from None
            raise
        return cls(producer, topic, partitions, cluster)

    async def send(self, bodies: Sequence[bytes]) -> None:
        """Return when the broker has acknowledged every body; raise `AwayError` when some may not be there."""
        futures = []
        try:
            async with asyncio.timeout(ACKNOWLEDGE_S):
                batch = self._producer.create_batch()
                for body in bodies:
                    if batch.append(key=None, value=body, timestamp=None) is None:
                        futures.append(await self._hand_over(batch))
                        batch = self._producer.create_batch()
                        if batch.append(key=None, value=body, timestamp=None) is None:
                            raise AwayError(f"an event of {len(body)} bytes does not fit into a batch")
                if batch.record_count():
                    futures.append(await self._hand_over(batch))
                await asyncio.gather(*futures)
        except Exception as error:  # aiokafka's own faults too: this link is given up, its events are kept
            for future in futures:
                future.cancel()
            raise AwayError(reason_of(error)) from None

    async def _hand_over(self, batch: object) -> "asyncio.Future[Any]":
        self._turn = (self._turn + 1) % len(self._partitions)
        partition = self._partitions[self._turn]
        future: asyncio.Future[Any] = await self._producer.send_batch(batch, self._topic, partition=partition)
        return future

    async def close(self) -> None:
        await close_producer(self._producer)


async def close_producer(producer: Producer) -> None:
    """Close it whole. An idempotent aiokafka producer retries for ever, so what it still holds is failed first.

    Its sender may then trip over a batch that it wanted to send again, before the connections are closed.
    """
    producer._message_accumulator.fail_all(KafkaConnectionError("closed"))
    for stop in (producer.stop, producer.client.close):
        with suppress(Exception):
            async with asyncio.timeout(CLOSE_S):
                await stop()


async def knock(brokers: str) -> None:
    """Try a bare connection to each broker first: aiokafka logs an error for every attempt that fails."""
    problem = "no broker is named"
    for broker in brokers.split(","):
        host, _, port = broker.strip().rpartition(":")
        try:
            async with asyncio.timeout(3.0):
                _, writer = await asyncio.open_connection(host.strip("[]"), int(port))
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()
        except ValueError:
            problem = f"{broker.strip()!r} is not host:port"
        except (OSError, TimeoutError) as error:
            problem = reason_of(error)
        else:
            return
    raise AwayError(problem)


def reason_of(error: BaseException) -> str:
    """Return in one line why the broker cannot be reached."""
    if isinstance(error, TimeoutError) and not str(error):
        return "no answer in time"
    return (str(error) or type(error).__name__).splitlines()[0][:200]


class SenderLoop(asyncio.SelectorEventLoop):
    """A loop that still resolves names while the interpreter shuts down, when executors take no work any more."""

    async def getaddrinfo(self, host: Any, port: Any, **how: Any) -> Any:
        answer: asyncio.Future[Any] = self.create_future()

        def deliver(result: object, error: Exception | None) -> None:
            if not answer.done():
                answer.set_result(result) if error is None else answer.set_exception(error)

        def ask() -> None:
            result, problem = None, None
            try:
                result = socket.getaddrinfo(host, port, **how)
            except Exception as error:
                problem = error
            with suppress(RuntimeError):  # the loop may have closed meanwhile
                self.call_soon_threadsafe(deliver, result, problem)

        try:
            threading.Thread(target=ask, name="tollmeter-resolver", daemon=True).start()
        except RuntimeError:  # no new threads at shutdown: then this loop waits for the answer itself
            return socket.getaddrinfo(host, port, **how)
        return await answer


class _Hush(logging.Filter):
    """Passes over what aiokafka says on our threads: a thousand lines about one broker, which we name in one.

    What the service itself does with aiokafka is logged as it ever was.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        return not threading.current_thread().name.startswith("tollmeter-") or log.isEnabledFor(logging.DEBUG)


def hush() -> None:
    """Let our threads' clients be quiet. A filter holds for its own logger alone, so each module's has one."""
    for name in [name for name in logging.root.manager.loggerDict if name.startswith("aiokafka")]:
        logging.getLogger(name).addFilter(_hush)


_hush = _Hush()
hush()


def quiet(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Futures of a link that was given up end unobserved by design; that is no news for the service's log."""
    log.debug("sender loop: %s", context.get("message"))
