"""The line under attack: a stack of its own in a temporary folder, two workers a stage, proxies on every way to it.

The broker is one, or three that are one cluster: then there are proxies between these too, and no other way to them.

The workers reach broker and engine through proxies; those named `-2` moreover from a network of their own, where that
is possible. The oracle and the producers talk to broker and engine directly.
"""

import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError
from aiokafka.protocol.admin import DescribeGroupsRequest_v3, DescribeGroupsResponse_v3

from tests.chaos.background import Background
from tests.chaos.machine import Disk, Namespace, Tracer
from tests.chaos.proxy import Proxy
from tests.cluster import Cluster
from tests.patience import Patience
from tollmeter.admin import setup as provision
from tollmeter.embedded import probe
from tollmeter.embedded.environment import settings_environment
from tollmeter.embedded.ports import choose
from tollmeter.embedded.stack import BROKER, FRONT, STAGES, Stack
from tollmeter.embedded.supervisor import Program
from tollmeter.schemas.topics import TOPICS
from tollmeter.settings import Settings
from tollmeter.sinks.clickhouse.client import ClickHouse, Unavailable, connect
from tollmeter.stacks import LOCK

SETTINGS = {
    "session_timeout_s": 6.0,
    "clickhouse_timeout_s": 5.0,
    "checkpoint_s": 1.0,
    "rollup_quiet_s": 0.3,
    "ledger_block_s": 0.3,
    "price_batch": 2_000,
}
_FRUGAL = {"POLARS_MAX_THREADS": "1", "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "2", "PYTHONUNBUFFERED": "1"}
_START_S = 90.0
DISK_OF = "broker-3"
"""Of three brokers the one whose disk can be made full."""
DescribeGroupsRequest_v3.RESPONSE_TYPE = DescribeGroupsResponse_v3  # aiokafka 0.14.0 reads the answer as version 2


class LineError(Exception):
    """The line cannot be built here; one line that says why."""


class Line:
    """Context manager: everything is up inside it and gone behind it."""

    def __init__(self, folder: Path, background: Background, note: Callable[[str], None], brokers: int = 1) -> None:
        """`brokers`: one, or three that are a cluster."""
        self.folder, self._background, self._note, self._several = folder, background, note, brokers > 1
        self.workers: dict[str, str] = {}
        self.brokers: tuple[str, ...] = (BROKER,)
        self.links: dict[tuple[str, str], Proxy] = {}
        """Whose way to which broker; whose: a broker's name, `peers` or `clients`."""
        self._exit = ExitStack()
        self.namespace, self.disk, self.tracer = Namespace(), Disk(folder / "clickhouse"), Tracer()
        self.broker_disk = Disk(folder / "brokers" / DISK_OF)

    def __enter__(self) -> "Line":
        with ExitStack() as undo:
            undo.callback(self.namespace.close)
            undo.callback(self.disk.close)
            undo.callback(self.broker_disk.close)
            (self.folder / LOCK).touch()  # a data folder from now on, whatever is mounted in it
            self.no_namespace, self.no_disk = self.namespace.missing(), self.disk.missing()
            self.no_tracer = self.tracer.missing()
            wanted = Settings(kafka="127.0.0.1:0", clickhouse="http://127.0.0.1:0", **SETTINGS)  # type: ignore[arg-type]
            self.stack = undo.enter_context(Stack(self.folder, workers=(), settings=wanted, note=self._note))
            self.settings = self.stack.settings
            engine_port = int(self.settings.clickhouse.rpartition(":")[2])
            self.to_engine = self._proxy(undo, engine_port)
            ports = self._three_brokers(undo) if self._several else self._one_broker(undo)
            self.worker_settings = self.worker_settings.model_copy(
                update={"clickhouse": f"http://127.0.0.1:{self.to_engine.port}"}
            )
            if self.no_namespace is None:
                self._lead_in(undo, (*ports, self.to_engine.port))
            provision.apply(self.settings)
            self.ledger = connect(self.settings)
            undo.callback(self.ledger.close)
            for table in ("usage_events", "usage_windows", "watch_progress"):
                self.ledger.command(f"ALTER TABLE {table} MODIFY SETTING fsync_after_insert = 1")
            undo.callback(self._stop_workers)  # while the ways to the broker are still open
            for stage in STAGES:
                for number in (1, 2):
                    self.start_worker(stage, number)
            self.wait_for("the workers", self.settled, _START_S)
            self._exit = undo.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._exit.close()

    # ------------------------------------------------------------------ construction

    def _one_broker(self, undo: ExitStack) -> tuple[int, ...]:
        """Give the broker a second listener that advertises a proxy; return the proxy's port."""
        port, inner_port = choose([0, 0])
        self.links["clients", BROKER] = self._proxy(undo, inner_port, port)
        self._advertise(port, inner_port)
        self.worker_settings = self.settings.model_copy(update={"kafka": f"127.0.0.1:{port}"})
        return (port,)

    def _three_brokers(self, undo: ExitStack) -> tuple[int, ...]:
        """Let a cluster take the broker's place, with a proxy on every way; return the ports for clients."""
        self.stack.stop(BROKER)
        self.no_broker_disk = self.broker_disk.missing()
        self.cluster = Cluster(self.folder / "brokers", self.stack.supervisor, partial(self._link, undo))
        self.brokers = self.cluster.names
        self.cluster.start()
        self.settings = self.settings.model_copy(update={"kafka": self.cluster.kafka, "kafka_replication": 3})
        self.worker_settings = self.settings
        return self.cluster.ports

    def _link(self, undo: ExitStack, whose: str, to: str, port: int) -> int:
        self.links[whose, to] = self._proxy(undo, port)
        return self.links[whose, to].port

    def _proxy(self, undo: ExitStack, behind: int, port: int = 0, host: str = "127.0.0.1") -> Proxy:
        proxy = self._background.call(_make_proxy(behind, port, host))
        undo.callback(lambda: self._background.call(proxy.stop()))
        return proxy

    def _advertise(self, port: int, inner_port: int) -> None:
        """Restart the broker with a listener for the workers whose advertised port is the proxy's."""
        main = int(self.settings.kafka.rpartition(":")[2])
        properties = self.folder / "kafka" / "server.properties"
        lines = properties.read_text()
        controller = next(line for line in lines.splitlines() if line.startswith("listeners=")).partition(",")[2]
        # a property that stands twice: the last one counts
        lines += (
            f"listeners=PLAINTEXT://127.0.0.1:{main},WORKERS://127.0.0.1:{inner_port},{controller}\n"
            f"advertised.listeners=PLAINTEXT://127.0.0.1:{main},WORKERS://127.0.0.1:{port}\n"
            "listener.security.protocol.map=PLAINTEXT:PLAINTEXT,WORKERS:PLAINTEXT,CONTROLLER:PLAINTEXT\n"
            "inter.broker.listener.name=PLAINTEXT\n"
        )
        properties.write_text(lines)
        self.stack.kill(BROKER, signal.SIGTERM, restart=False)
        self.stack.resume(BROKER)
        self.wait_for("the broker", lambda: probe.is_our_broker(self.settings, self.folder / "kafka"), _START_S)

    def _lead_in(self, undo: ExitStack, ports: tuple[int, ...]) -> None:
        """Let ports of the namespace's loopback lead to the same ports here."""
        pairs: list[str] = []
        for port in ports:
            outside = self._proxy(undo, port, host=self.namespace.host)
            pairs += [str(port), f"{self.namespace.host}:{outside.port}"]
        command = self.namespace.command(sys.executable, "-m", "tests.chaos.relay", *pairs)
        self.stack.supervisor.start(Program("relay", command, os.environ.copy, self.folder / "logs" / "relay.log"))

    # ------------------------------------------------------------------ workers

    def start_worker(self, stage: str, number: int) -> str:
        """Start a worker; those with an even number live in the other network."""
        name = f"{stage}-{number}"
        ready = self.folder / "run" / f"{name}.ready"
        ready.parent.mkdir(exist_ok=True)
        environment = {name: value for name, value in os.environ.items() if not name.startswith("TOLLMETER_")}
        environment |= {**_FRUGAL, **settings_environment(self.worker_settings), "TOLLMETER_READY_FILE": str(ready)}
        command = [sys.executable, "-m", "tollmeter", "worker", stage]
        if number % 2 == 0 and self.no_namespace is None:
            command = self.namespace.command(*command)
        log = self.folder / "logs" / f"{name}.log"
        self.stack.supervisor.start(Program(name, command, environment.copy, log, ready))
        self.workers[name] = stage
        return name

    def _stop_workers(self) -> None:
        for name in [*self.workers]:
            self.stop_worker(name)

    def stop_worker(self, name: str) -> None:
        """Stop a worker for good."""
        self.stack.stop(name)
        del self.workers[name]

    def signal(self, name: str, number: int, *, restart: bool = True) -> None:
        """Send a signal to a process of the line."""
        self.stack.kill(name, number, restart=restart)

    def pid(self, name: str) -> int:
        """Return the process id of a part of the line."""
        return self.stack.processes()[name].process.pid

    def settled(self) -> bool:
        """Tell whether every worker runs, has said that it is ready, and is a member of a stable group."""
        running = self.stack.processes()
        if not all(running[name].alive and self.stack.worker_ready(name) for name in (*self.workers,)):
            return False
        if not all(running[name].alive for name in (*self.brokers, FRONT)):
            return False
        if self._several and not self.cluster.whole(self.topics):
            return False
        expected = {stage: sum(of == stage for of in self.workers.values()) for stage in STAGES}
        with suppress(KafkaError, OSError, TimeoutError):
            return self._background.call(_members(self.settings), 10.0) == expected
        return False

    @property
    def topics(self) -> tuple[str, ...]:
        """All topics of the line."""
        return tuple(self.settings.topic(topic.name) for topic in TOPICS)

    def answers(self) -> bool:
        """Tell whether the engine can be asked."""
        with suppress(Unavailable):
            return self.ledger.query("SELECT 1 AS one") == [{"one": 1}]
        return False

    def memory_mb(self) -> dict[str, int]:
        """Return resident memory by process."""
        found = {}
        for name, running in self.stack.processes().items():
            with suppress(OSError, IndexError):
                pages = int(Path("/proc", str(running.process.pid), "statm").read_text().split()[1])
                found[name] = pages * os.sysconf("SC_PAGE_SIZE") >> 20
        return found

    @staticmethod
    def wait_for(what: str, look: Callable[[], bool], seconds: float) -> None:
        """Return when it is so. Raises `LineError` after so many seconds of an idle machine."""
        patience = Patience(seconds)
        while not look():
            if patience.ended():
                raise LineError(f"{what} did not become ready in {seconds:g} s")
            time.sleep(0.2)

    @property
    def client(self) -> ClickHouse:
        """The engine, asked directly."""
        return self.ledger


async def _make_proxy(behind: int, port: int, host: str) -> Proxy:
    return await Proxy("127.0.0.1", behind).start(port, host)


async def _members(settings: Settings) -> dict[str, int]:
    """Return the number of members of each stage's group; -1 while it is not stable."""
    admin = AIOKafkaAdminClient(**settings.kafka_options(), request_timeout_ms=5_000)
    try:
        await admin.start()
        answers = await admin.describe_consumer_groups([settings.group(stage) for stage in STAGES])
        groups = {group[1]: group for answer in answers for group in answer.groups}
        return {
            stage: len(groups[settings.group(stage)][5]) if groups[settings.group(stage)][2] == "Stable" else -1
            for stage in STAGES
        }
    finally:
        await admin.close()
