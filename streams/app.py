"""A stage is one Faust app with one serial loop: everything that waits becomes one pass, a pass ends before its ack.

An unexpected error ends the process (`crash`): nothing is acked, and whoever starts next sees the same records again.
"""

import asyncio
import logging
import os
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from time import monotonic
from typing import Any, NoReturn

import faust
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from tollmeter.settings import Settings
from tollmeter.streams.logs import log_to_stderr
from tollmeter.streams.transport import StartPositions, register

READY_FILE = "TOLLMETER_READY_FILE"
EXIT_CRASH = 70
BACKLOG_GAP_S = 0.3  # when nothing has arrived for so long, the backlog is at its end
MAX_REQUEST_BYTES = 9_000_000
"""Above the largest record of any topic; the size of priced records is kept by PRICE itself."""

Headers = Sequence[tuple[str, bytes]]
Step = Callable[[list[Any]], Awaitable[Sequence[Any] | None]]
Idle = Callable[[float], Awaitable[None]]

log = logging.getLogger("tollmeter")


class BrokerError(Exception):
    """The broker cannot be reached, or it lacks topics; the text is one line for the user."""


class GivenUp(Exception):  # noqa: N818  # an answer, no error
    """Raised by a step whose partitions were taken away: its events go back, unacked."""


class StageApp(faust.App):  # type: ignore[misc]  # Faust is read untyped
    """Faust's app, without directories on disk, and with the positions to start from."""

    start_positions: StartPositions | None = None
    source_topics: tuple[str, ...] = ()

    def _create_directories(self) -> None:
        """Write nothing: there are no tables."""


def build_app(
    settings: Settings, stage: str, topics: Sequence[str], start_positions: StartPositions | None = None
) -> StageApp:
    """Return the app of a stage that consumes these topics of `schemas.topics`; nothing is connected yet."""
    scheme = register()
    app = StageApp(
        settings.group(stage),
        broker=";".join(f"{scheme}://{address.strip()}" for address in settings.kafka.split(",")),
        store="memory://",
        autodiscover=False,
        web_enabled=False,  # it would listen on 0.0.0.0:6066 without authentication
        topic_allow_declare=False,
        topic_disable_leader=True,
        table_standby_replicas=0,  # no tables: the plain round-robin assignor is chosen
        agent_supervisor="mode.CrashingSupervisor",
        stream_buffer_maxsize=16,  # counts batches here
        stream_wait_empty=True,
        broker_client_id=f"tollmeter-{stage}",
        broker_commit_interval=1.0,
        broker_session_timeout=settings.session_timeout_s,
        broker_heartbeat_interval=min(3.0, settings.session_timeout_s / 3),
        broker_max_poll_records=10_000,
        consumer_max_fetch_size=4 << 20,
        consumer_auto_offset_reset="earliest",
        consumer_metadata_max_age_ms=10_000,  # a broker that just started names no topics: ask again soon, not in 5 min
        producer_acks=-1,
        producer_linger=0,
        producer_compression_type=None,  # the blocks are compressed already
        producer_max_request_size=MAX_REQUEST_BYTES,
        producer_request_timeout=30.0,
        **_credentials(settings),
    )
    app.start_positions = start_positions
    app.source_topics = tuple(settings.topic(name) for name in topics)
    return app


def _credentials(settings: Settings) -> dict[str, Any]:
    options = settings.kafka_options()
    context = options.get("ssl_context")
    if settings.kafka_security.startswith("SASL"):
        return {
            "broker_credentials": faust.SASLCredentials(
                username=options["sasl_plain_username"],
                password=options["sasl_plain_password"],
                mechanism=options["sasl_mechanism"],
                ssl_context=context,
            )
        }
    return {"broker_credentials": faust.SSLCredentials(context)} if context else {}


class Sender:
    """Sends through Faust's own producer, made idempotent: one connection, one life cycle.

    Not through `topic.send`: its buffer is flushed for 0.1 s only before a commit and swallows failures.
    """

    def __init__(self, app: StageApp) -> None:
        self._app = app

    async def send(self, topic: str, partition: int, key: bytes | None, value: bytes | None, headers: Headers) -> int:
        """Return the record's offset once the brokers have acknowledged it; raise when it was not written."""
        metadata = await self._app.producer.send_and_wait(topic, key, value, partition, None, list(headers))
        return int(metadata.offset)


class Passes:
    """The serial loop of a stage.

    `step(events)` gets every delivery that waits, of all partitions, as one pass; they are acked after it returned,
    but for those that it returns: they stay unacked, and with them what follows in their partitions.
    `event.value` is a list of aiokafka records in offset order. What arrives meanwhile forms the next pass. A pass
    starts when `weigh` counts `limit`, or when its first event has waited `linger_s`; one that weighs a tenth of the
    limit by then is part of a backlog, and waits up to `backlog_linger_s` while more arrives. `idle(now)` runs between
    passes, at most every `idle_every_s`, with the monotonic time. Neither ever runs beside the other.
    """

    def __init__(
        self,
        app: StageApp,
        step: Step,
        *,
        limit: int,
        weigh: Callable[[Any], int] = lambda event: len(event.value),
        linger_s: float = 0.0,
        backlog_linger_s: float = 0.0,
        idle: Idle | None = None,
        idle_every_s: float = 0.1,
    ) -> None:
        self.app = app
        self._step, self._limit, self._weigh, self._linger_s = step, limit, weigh, linger_s
        self._backlog_linger_s = max(linger_s, backlog_linger_s)
        self._idle, self._idle_every_s = idle, idle_every_s
        self._idle_at = 0.0
        self._waiting: list[Any] = []
        self._weight = 0
        self._since = self._arrived = 0.0
        self._ready_said = False
        topic = app.topic(
            *app.source_topics, key_type=bytes, value_type=bytes, key_serializer="raw", value_serializer="raw"
        )
        app.agent(topic, name="passes")(self._agent)

    def ours(self, event: Any) -> bool:
        """Tell whether this worker still owns the event: check it before an effect that cannot be undone."""
        return bool(self.app.consumer.flow_active and event.message.generation_id == self.app.consumer_generation_id)

    def all_ours(self, events: Sequence[Any]) -> bool:
        """Tell whether every event is still ours; False as soon as a rebalance or a stop has begun."""
        return all(self.ours(event) for event in events)

    async def _agent(self, stream: Any) -> None:
        arrivals = aiter(stream.noack().events())
        coming: asyncio.Task[Any] | None = None
        try:
            while True:
                coming = await self._gather(arrivals, coming)
                await self._run_pass()
                await self._maybe_idle()
                self._announce()
        except StopAsyncIteration:
            if not self.app.should_stop:
                crash(RuntimeError("the stream of records ended"))
        except Exception as error:
            crash(error)
        finally:
            if coming is not None:
                coming.cancel()

    async def _gather(self, arrivals: AsyncIterator[Any], coming: asyncio.Task[Any] | None) -> asyncio.Task[Any]:
        """Take what has arrived, waiting for the first event until the next idle time; return the pending read."""
        if coming is None:
            coming = asyncio.create_task(_next(arrivals))
        await asyncio.wait({coming}, timeout=self._patience())
        while coming.done():
            event = coming.result()
            if not self._waiting:
                self._since = monotonic()
            self._waiting.append(event)
            self._arrived = monotonic()
            self._weight += self._weigh(event)
            coming = asyncio.create_task(_next(arrivals))
            if self._weight >= self._limit:
                break
            await asyncio.sleep(0)  # the stream gives way once before it looks into its queue
            await asyncio.sleep(0)
        return coming

    def _patience(self) -> float:
        if self._weight >= self._limit:
            return 0.0
        now = monotonic()
        until = self._idle_at + self._idle_every_s
        if self._waiting:
            until = min(until, self._due_at())
        return max(0.0, until - now)

    def _due_at(self) -> float:
        soonest = self._since + self._linger_s
        if self._weight * 10 < self._limit:
            return soonest
        return min(self._since + self._backlog_linger_s, max(soonest, self._arrived + BACKLOG_GAP_S))

    async def _run_pass(self) -> None:
        """Run one pass if it is due. What no longer is ours goes back, so that a rebalance need not wait for it."""
        lost = [event for event in self._waiting if not self.ours(event)]
        if lost:
            self._abandon(lost)
            self._set_waiting([event for event in self._waiting if self.ours(event)])
        due = self._weight >= self._limit or monotonic() >= self._due_at()
        if not self._waiting or not due:
            return
        events = self._waiting
        self._set_waiting([])
        try:
            held = await self._step(events) or ()
        except GivenUp:
            self._abandon(events)
            return
        self._abandon(held)
        for event in events:
            if event not in held:
                self.app.consumer.finish(event.message)

    def _set_waiting(self, events: list[Any]) -> None:
        self._waiting = events
        self._weight = sum(self._weigh(event) for event in events)

    def _abandon(self, events: Sequence[Any]) -> None:
        for event in events:
            self.app.consumer.abandon(event.message)

    async def _maybe_idle(self) -> None:
        now = monotonic()
        if now < self._idle_at + self._idle_every_s:
            return
        self._idle_at = now
        if self._idle is not None and self.app.consumer.flow_active:
            await self._idle(now)

    def _announce(self) -> None:
        if self._ready_said or not self.app.consumer.settled:
            return
        self._ready_said = True
        owned = ", ".join(f"{tp.topic}/{tp.partition}" for tp in sorted(self.app.consumer.assignment()))
        log.info("ready: %s", owned or "no partition is left for this worker")
        if path := os.environ.get(READY_FILE):
            Path(path).write_text(f"{os.getpid()}\n", encoding="ascii")


async def _next(arrivals: AsyncIterator[Any]) -> Any:
    return await anext(arrivals)


async def preflight(settings: Settings, topics: Sequence[str]) -> dict[str, int]:
    """Return the partition count of each topic. Raises `BrokerError` when the broker is away or lacks one."""
    admin = AIOKafkaAdminClient(**settings.kafka_options(), client_id="tollmeter-preflight", request_timeout_ms=10_000)
    try:
        try:
            await admin.start()
            found = await admin.describe_topics([settings.topic(name) for name in topics])
        finally:
            await admin.close()
    except (KafkaError, OSError) as error:
        raise BrokerError(
            f"no Kafka broker answers at {settings.kafka} ({type(error).__name__}): "
            "start one with 'tollmeter up' or set TOLLMETER_KAFKA"
        ) from None
    counts = {entry["topic"]: len(entry["partitions"]) for entry in found if not entry["error_code"]}
    missing = [settings.topic(name) for name in topics if not counts.get(settings.topic(name))]
    if missing:
        raise BrokerError(f"{settings.kafka} has no topic {', '.join(missing)}: create them with 'tollmeter setup'")
    return {name: counts[settings.topic(name)] for name in topics}


def crash(error: BaseException) -> NoReturn:
    """Log an unexpected error and end the process at once: only what is durable and acked counts."""
    log.critical("unexpected: %r; the process ends", error, exc_info=error)
    logging.shutdown()
    os._exit(EXIT_CRASH)


def run(app: StageApp) -> int:
    """Run the app's worker in this process until SIGTERM or SIGINT; return its exit code."""
    log_to_stderr()
    warnings.simplefilter("ignore", DeprecationWarning)  # Faust's own, of asyncio's
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    worker = faust.Worker(
        app, loop=loop, quiet=True, redirect_stdouts=False, override_logging=False, loglevel="warning"
    )
    worker.spinner = None
    try:
        worker.execute_from_commandline()
    except SystemExit as done:
        return int(done.code or 0)
    return 0
