"""A stage is one Faust app with one serial loop: everything that waits becomes one batch, a batch ends before its ack.

An unexpected error ends the process (`crash`): nothing is acked, and whoever starts next sees the same records again.
"""

import asyncio
import gc
import logging
import os
import signal
import threading
import warnings
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from time import monotonic, time
from typing import TYPE_CHECKING, NoReturn

import faust
from aiokafka.errors import KafkaError
from faust.types import TP

from tollmeter.broker.client import BrokerAway, BrokerError, kafka_admin
from tollmeter.broker.layout import Layout, ProvisionError
from tollmeter.broker.passed import At, places
from tollmeter.schemas.record import Headers
from tollmeter.settings import HEALTH_PORTS, Settings
from tollmeter.streams.engine.facts import assignments, facts, partitions
from tollmeter.streams.engine.gaps import Loss
from tollmeter.streams.engine.health import Health
from tollmeter.streams.engine.incidents import Incidents
from tollmeter.streams.engine.logs import log_to_stderr
from tollmeter.streams.engine.metrics import WorkerCollector, expose
from tollmeter.streams.engine.probes import Probes
from tollmeter.streams.engine.runtime import EXIT_CRASH, crash
from tollmeter.streams.engine.transport import register

if TYPE_CHECKING:
    from tollmeter.streams.engine.stage import Stage

PREFLIGHT_MS = 10_000
STOP_S = 8.0
"""An orderly stop takes no longer: without a broker the clients would go on trying to say good-bye."""
MAX_REQUEST_BYTES = 9_000_000
"""Above the largest record of any topic; the size of priced records is kept by PRICE itself."""

GC_OBJECTS = 200_000
"""New objects between two collections. A batch holds tens of thousands of records, none of them garbage while it lasts:
looking through them every 700 objects took a tenth of PRICE's time."""

log = logging.getLogger("tollmeter")


class LogReplacedError(Exception):
    """A topic was deleted and made again while it was read: only a new process begins at the beginning."""


class StageApp(faust.App):  # type: ignore[misc]  # Faust is read untyped
    """Faust's app, without directories on disk, with its stage, its health and its incidents."""

    stage: "Stage"
    source_topics: tuple[str, ...] = ()
    health: Health
    incidents: Incidents
    health_host: str = "127.0.0.1"
    health_port: int | None = 0
    """None: the stage's own, or any free one where that is taken."""
    miscounted: str = ""
    """Why everything is paused: the partition counts are not those of the layout. "" while they are."""
    read_passed: Callable[[], Awaitable[frozenset[At]]]
    stopped_at: dict[TP, int]
    """Partitions that stand in front of a record, and its offset."""

    async def on_loss(self, loss: Loss, running: bool) -> None:
        """Declare a loss before it is passed over; another log under a topic's name needs a new process."""
        await self.incidents.lost(loss)
        if running and loss.kind == "new_epoch":
            self.give_up(LogReplacedError(f"{loss.tp.topic}/{loss.tp.partition}"))
        await self.stage.lost(loss)

    def give_up(self, error: BaseException) -> NoReturn:
        """End the process: only a new one can go on rightly."""
        crash(error)

    async def stop_reading(self, tp: TP, offset: int, why: str) -> None:
        """Pause a partition for good in front of a record that must not be passed over, and say so."""
        self.consumer.hold(tp, why)
        self.stopped_at[tp] = offset
        await self.incidents.paused(tp, str(offset), f"offset {offset}: {why}")

    async def before_reading(self, assigned: set[TP]) -> None:
        """Pause everything while the partition counts are wrong: each organisation would change its partition.

        A topic that was made anew since this process began needs a new process: what it knows is about the old one.
        """
        for topic in await self.incidents.replaced(self.source_topics):
            await self.on_loss(Loss(TP(topic, 0), "new_epoch", 0, -1), running=True)
        before, self.miscounted = self.miscounted, await self.incidents.why_not_read()
        if before and not self.miscounted:
            self.consumer.let_go(before)
        for tp in assigned if self.miscounted else ():
            self.consumer.hold(tp, self.miscounted)
        await self._go_on_behind_what_is_passed_over(assigned)

    async def _go_on_behind_what_is_passed_over(self, assigned: set[TP]) -> None:
        """End in order once a person has passed over what a partition stands at: who starts next reads on behind it."""
        stopped = {tp: at for tp, at in self.stopped_at.items() if tp in assigned and tp in self.consumer.held}
        self.stopped_at = stopped
        passed = await self.passed() if stopped else frozenset()
        for tp, offset in stopped.items():
            if At(self.incidents.id_of(tp.topic), tp.partition, offset) in passed:
                log.warning("%s/%d: offset %d is passed over; this worker starts again", tp.topic, tp.partition, offset)
                os.kill(os.getpid(), signal.SIGTERM)
                return

    async def passed(self) -> frozenset[At]:
        """Return what a person has passed over; nothing while the broker does not say."""
        try:
            return await self.read_passed()
        except ProvisionError as error:
            log.warning("what is passed over is unknown: %s", error)
            return frozenset()

    async def _consumer_wait_empty(self, consumer: object, logger: object) -> None:
        await super()._consumer_wait_empty(consumer, logger)
        await self.stage.leaving()

    def _create_directories(self) -> None:
        """Write nothing: there are no tables."""


def build_app(settings: Settings, stage: str, topics: Sequence[str], layout: Layout) -> StageApp:
    """Return the app of a stage that consumes these topics of `schemas.topics`; nothing is connected yet.

    It pauses while the broker's partition counts are not those of the layout.
    """
    app = StageApp(settings.group(stage), broker_client_id=f"tollmeter-{stage}", **_options(settings))
    app.source_topics = tuple(settings.topic(name) for name in topics)
    app.health = Health(stage, partial(facts, app))
    app.health_host, app.health_port = settings.health_host, settings.health_port
    app.incidents = Incidents(settings, stage, Sender(app).send, layout)
    app.read_passed, app.stopped_at = partial(places, settings), {}
    return app


def _options(settings: Settings) -> dict[str, object]:
    """Return how Faust is used here: without tables, without a server of its own, and with acknowledged sends."""
    scheme = register()
    return {
        "broker": ";".join(f"{scheme}://{address.strip()}" for address in settings.kafka.split(",")),
        "store": "memory://",
        "autodiscover": False,
        "web_enabled": False,  # it would listen on 0.0.0.0:6066 without authentication
        "topic_allow_declare": False,
        "topic_disable_leader": True,
        "table_standby_replicas": 0,  # no tables: the plain round-robin assignor is chosen
        "agent_supervisor": "mode.CrashingSupervisor",
        "stream_buffer_maxsize": 16,  # counts batches here
        "stream_wait_empty": True,
        "broker_commit_interval": 1.0,
        "broker_session_timeout": settings.session_timeout_s,
        "broker_max_poll_interval": settings.poll_interval_s,
        "broker_heartbeat_interval": min(3.0, settings.session_timeout_s / 3),
        "broker_max_poll_records": 10_000,
        "consumer_max_fetch_size": 4 << 20,
        "consumer_auto_offset_reset": "earliest",
        "consumer_metadata_max_age_ms": 10_000,  # a broker that just started names no topics: ask again soon
        "producer_acks": -1,
        "producer_linger": 0,
        "producer_compression_type": None,  # the blocks are compressed already
        "producer_max_request_size": MAX_REQUEST_BYTES,
        "producer_request_timeout": 30.0,
        **_credentials(settings),
    }


def _credentials(settings: Settings) -> dict[str, object]:
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


async def preflight(settings: Settings, topics: Sequence[str]) -> dict[str, int]:
    """Return the partition count of each topic. Raises `BrokerError` when the broker is away or lacks one."""
    try:
        async with kafka_admin(settings, PREFLIGHT_MS) as admin:
            found = await admin.describe_topics([settings.topic(name) for name in topics])
    except (KafkaError, OSError) as error:
        raise BrokerAway(settings, error) from None
    counts = {entry["topic"]: len(entry["partitions"]) for entry in found if not entry["error_code"]}
    missing = [settings.topic(name) for name in topics if not counts.get(settings.topic(name))]
    if missing:
        raise BrokerError(f"{settings.kafka} has no topic {', '.join(missing)}: create them with 'tollmeter setup'")
    return {name: counts[settings.topic(name)] for name in topics}


def _stuck(why: str) -> None:
    """End a process whose loop hangs."""
    log.critical("stuck: %s; the process ends", why)
    logging.shutdown()
    os._exit(EXIT_CRASH)


class StageWorker(faust.Worker):  # type: ignore[misc]  # Faust is read untyped
    """Faust's worker, whose stop has an end."""

    async def stop(self) -> None:
        """Stop in order: the batch under way is finished and committed, the group left; as far as STOP_S allows."""
        end = threading.Timer(STOP_S, _cut_short)
        end.daemon = True  # it must not hold up an end in order, and still runs while threads are waited for
        end.start()
        await super().stop()


def _cut_short() -> None:
    log.warning("no orderly stop within %g s: the process ends; what it has not committed is read again", STOP_S)
    os._exit(0)


def serve_probes(app: StageApp) -> None:
    """Answer health checks and scrapes. Raises `BrokerError` when the port that was asked for is taken."""
    collector = WorkerCollector(app.health.stage, lambda: partitions(app, time(), monotonic()))
    collector.waits = lambda: app.health.waits
    collector.assignments = lambda: assignments(app)
    probes = _listen(app, lambda: expose([collector]))
    port = probes.start()
    host = f"[{app.health_host}]" if ":" in app.health_host else app.health_host
    log.info("health and metrics: http://%s:%d", host, port)
    probes.watch(_stuck)


def _listen(app: StageApp, metrics: Callable[[], bytes]) -> Probes:
    if app.health_port is None:
        own = HEALTH_PORTS.get(app.health.stage, 0)
        try:
            return Probes(app.health, metrics, own, app.health_host)
        except OSError as error:
            log.warning("port %d cannot be used for health checks (%s): another one is taken", own, error.strerror)
    try:
        return Probes(app.health, metrics, app.health_port or 0, app.health_host)
    except OSError as error:
        raise BrokerError(
            f"TOLLMETER_HEALTH_PORT: port {app.health_port or 0} of {app.health_host} cannot be used "
            f"({error.strerror}): choose another, or 0 for any free one"
        ) from None


def serve(app: StageApp) -> int:
    """Run the app's worker in this process until SIGTERM or SIGINT; return its exit code."""
    log_to_stderr()
    serve_probes(app)
    warnings.simplefilter("ignore", DeprecationWarning)  # Faust's own, of asyncio's
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    worker = StageWorker(app, loop=loop, quiet=True, redirect_stdouts=False, override_logging=False, loglevel="warning")
    worker.spinner = None
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_OBJECTS, 10, 10)
    try:
        worker.execute_from_commandline()
    except SystemExit as done:
        return int(done.code or 0)
    return 0
