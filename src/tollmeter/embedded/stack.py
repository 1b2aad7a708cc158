"""The whole line on one machine: broker and ClickHouse front, set-up, workers; in a `with`, so that nothing is left.

`with Stack(folder) as stack: stack.settings` serves the command line, the tests and the benchmarks alike.
"""

import json
import os
import secrets
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pydantic import SecretStr

from tollmeter.admin import setup as provision
from tollmeter.broker.layout import UnreachableError
from tollmeter.embedded import class_archive as warm
from tollmeter.embedded import jars, kafka, ports, probe, state
from tollmeter.embedded.jars import EmbeddedError
from tollmeter.embedded.supervisor import Program, Running, Supervisor
from tollmeter.settings import NOT_SETTINGS, PREFIX, Settings

STAGES = ("price", "ledger", "watch")
NOTIFY = "notify"
BROKER, FRONT = "broker", "front"
_START_S = 60.0
_ATTEMPTS = 3
# One core each at most, and no arena per thread: idle memory counts more here than the last percent.
_FRUGAL = {
    "MALLOC_ARENA_MAX": "2",
    # polars gives memory back after 0.5 s, and the next batch takes it again: a sixth of LEDGER's time
    "_RJEM_MALLOC_CONF": "dirty_decay_ms:5000,muzzy_decay_ms:5000",
    "POLARS_MAX_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "PYTHONUNBUFFERED": "1",
}


class _PortTakenError(EmbeddedError):
    """Another program took a port between the choice and the start."""


class Stack:
    """Broker, front and workers under one supervisor. `settings` has the real addresses once started."""

    def __init__(
        self,
        data_dir: Path,
        *,
        workers: Sequence[str] = STAGES,
        settings: Settings | None = None,
        note: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.data_dir = data_dir.absolute()
        self._wish = (settings or Settings()).model_copy(update={"data_dir": self.data_dir})
        self.settings = self._wish
        self._workers = tuple(workers)
        self._note = note
        self._exit = ExitStack()
        self._ready = False
        self._written: dict[str, Any] = {}
        self.supervisor: Supervisor

    def __enter__(self) -> "Stack":
        """Return when everything is ready. Raises `EmbeddedError`, `AlreadyRunningError`, `ProvisionError`."""
        with ExitStack() as exit_stack:
            exit_stack.enter_context(state.owner(self.data_dir))
            self.supervisor = Supervisor(self._note)
            exit_stack.callback(self._stop)
            self._start()
            self._exit = exit_stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop workers, front and broker in this order; the data stays."""
        self._exit.close()

    def _start(self) -> None:
        java, folder = jars.java(), jars.fetch(note=self._note)
        options = [f"-XX:SharedArchiveFile={classes}"] if (classes := warm.archive(java, folder)) else []
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                self._start_servers(lambda *ports: kafka.prepare(java, folder, self._broker_dir, *ports, *options))
                break
            except _PortTakenError:
                if attempt == _ATTEMPTS:
                    raise
        if self._workers:
            made = self._provision()
            self._note(f"set up: {len(made)} new topics, records and tables" if made else "set up: nothing to do")
        for stage in self._workers:
            self.start_worker(stage)
        if self._workers:
            self._note(f"starting the workers: {', '.join(self._workers)}")
        self._await("the workers", lambda: all(self.worker_ready(name) for name in self._workers))
        self._ready = True
        self.write_state()

    def _start_servers(self, prepare: Callable[[int, int], list[str]]) -> None:
        """Start broker and front on free ports. Raises `_PortTakenError` when another program was quicker."""
        wanted = [_port(self._wish.kafka), _http_port(self._wish), 0]
        kafka_port, http_port, controller_port = chosen = ports.choose(wanted)
        self.settings = self._wish.model_copy(
            update={
                "kafka": f"127.0.0.1:{kafka_port}",
                "clickhouse": f"http://127.0.0.1:{http_port}",
                "clickhouse_user": "default",
                "clickhouse_password": SecretStr(_users(self.data_dir)["default"]),
            }
        )
        self._note(f"starting the broker at {self.settings.kafka} and ClickHouse at {self.settings.clickhouse}")
        self.supervisor.start(self._front(http_port))
        command = prepare(kafka_port, controller_port)
        self.supervisor.start(Program(BROKER, command, _environment(), self._log(BROKER)))
        try:
            self._await(
                "the broker and ClickHouse",
                lambda: probe.is_our_front(self.settings) and probe.is_our_broker(self.settings, self._broker_dir),
            )
        except EmbeddedError as error:
            self.supervisor.stop(FRONT)
            self.supervisor.stop(BROKER)
            if ports.choose(chosen) == chosen:
                raise
            raise _PortTakenError(str(error)) from None

    def _provision(self) -> list[provision.Step]:
        """Set up; a broker that listens may need a moment more on a busy machine."""
        deadline = time.monotonic() + _START_S
        while True:
            try:
                return provision.apply(self.settings)
            except UnreachableError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)

    def _front(self, port: int) -> Program:
        users = self.data_dir / "users.json"
        command = [sys.executable, "-m", "tollmeter.embedded.front", "--data", str(self.data_dir / "clickhouse")]
        command += ["--port", str(port), "--users", str(users)]
        return Program(FRONT, command, _environment(), self._log(FRONT))

    def start_worker(self, stage: str, name: str = "") -> str:
        """Start a worker of a stage, a second one under another name; return its name without waiting."""
        name = name or stage
        ready = self.data_dir / "run" / f"{name}.ready"
        ready.parent.mkdir(exist_ok=True)
        environment = {**_environment(), **_FRUGAL, **settings_environment(self.settings)}
        environment["TOLLMETER_READY_FILE"] = str(ready)
        environment["TOLLMETER_HEALTH_FILE"] = str(self._health_file(name))
        words = (NOTIFY,) if stage == NOTIFY else ("worker", stage)
        command = [sys.executable, "-m", "tollmeter", *words]
        self.supervisor.start(Program(name, command, environment, self._log(name), ready))
        return name

    def worker_ready(self, name: str) -> bool:
        """Tell whether a worker has its partitions."""
        return (self.data_dir / "run" / f"{name}.ready").exists()

    def kill(self, name: str, number: int, *, restart: bool = True) -> None:
        """Send a signal to one process (`broker`, `front`, a worker's name); it is started again unless told not to."""
        self.supervisor.kill(name, number, restart=restart)

    def resume(self, name: str) -> int:
        """Start again a process that was killed with `restart=False`; return its pid."""
        return self.supervisor.resume(name)

    def stop(self, name: str) -> None:
        """Stop one process for good, with SIGTERM first."""
        self.supervisor.stop(name)

    def processes(self) -> dict[str, Running]:
        """Return the processes by name."""
        return self.supervisor.snapshot()

    def write_state(self) -> None:
        """Tell other commands where everything is, if that has changed."""
        document = {
            "pid": os.getpid(),
            "ready": self._ready,
            **state.describe(self.settings),
            "processes": {
                name: {
                    "pid": running.process.pid,
                    "up": running.alive,
                    "restarts": running.restarts,
                    "health": self.health(name),
                }
                for name, running in self.processes().items()
            },
        }
        if document != self._written:
            state.write(self.data_dir, document)
            self._written = document

    def _health_file(self, name: str) -> Path:
        return self.data_dir / "run" / f"{name}.health"

    def health(self, name: str) -> str | None:
        """Return the address of a worker's health checks, None of a program that has none, or not yet."""
        try:
            port = self._health_file(name).read_text(encoding="ascii").strip()
        except OSError:
            return None
        return f"http://127.0.0.1:{port}" if port else None

    @property
    def _broker_dir(self) -> Path:
        return self.data_dir / "kafka"

    def _log(self, name: str) -> Path:
        return self.data_dir / "logs" / f"{name}.log"

    def _await(self, what: str, ready: Callable[[], bool]) -> None:
        """Return when ready; raise as soon as a process has ended, or after a minute."""
        deadline = time.monotonic() + _START_S
        while not ready():
            self.write_state()
            for name, running in self.processes().items():
                if not running.alive and (name in (BROKER, FRONT) or running.restarts >= 2):
                    raise EmbeddedError(f"{name} did not start: {_last_line(running.program.log)}")
            if time.monotonic() > deadline:
                raise EmbeddedError(f"{what} did not become ready in {_START_S:g} s: see {self.data_dir / 'logs'}")
            time.sleep(0.02)

    def _stop(self) -> None:
        names = [name for name in self.processes() if name not in (BROKER, FRONT)]
        self.supervisor.close([names, [FRONT], [BROKER]])


def settings_environment(settings: Settings) -> dict[str, str]:
    """Return the variables from which a child process builds the same settings."""
    values = {}
    for name, default in Settings().model_dump().items():
        value = getattr(settings, name)
        if value != default or name in ("kafka", "clickhouse", "clickhouse_user"):
            text = value.get_secret_value() if isinstance(value, SecretStr) else str(value)
            values[f"{PREFIX}{name.upper()}"] = text
    return values


def _environment(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return the environment without our settings: a child gets exactly those of the stack."""
    return {name: value for name, value in environment.items() if not name.startswith(PREFIX) or name in NOT_SETTINGS}


def _users(data_dir: Path) -> dict[str, str]:
    """Write the front's users once and return their passwords.

    Both have one although the front listens on loopback alone: other users of the machine and pages in a browser reach
    loopback, too.
    """
    file = data_dir / "users.json"
    if not file.exists():
        users = {
            "default": {"password": secrets.token_urlsafe(18)},
            "reader": {"password": secrets.token_urlsafe(18), "readonly": True},
        }
        state.write_private(file, json.dumps(users, indent=1))
    return {name: fields["password"] for name, fields in json.loads(file.read_text()).items()}


def _port(address: str) -> int:
    return int(address.rpartition(":")[2])


def _http_port(settings: Settings) -> int:
    port = urlsplit(settings.clickhouse).port
    return 8123 if port is None else port


def _last_line(log: Path) -> str:
    try:
        lines = log.read_text(errors="replace").strip().splitlines()
    except OSError:
        lines = []
    return f"{lines[-1][:300]} (see {log})" if lines else f"see {log}"
