"""The whole line on one machine: broker and ClickHouse front, set-up, workers; in a `with`, so that nothing is left.

`with Stack(folder) as stack: stack.settings` serves the command line, the tests and the benchmarks alike.
"""

import os
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from tollmeter import stacks
from tollmeter.admin import secret
from tollmeter.admin import setup as provision
from tollmeter.broker.layout import UnreachableError
from tollmeter.embedded import class_archive as warm
from tollmeter.embedded import jars, kafka, ports, probe, state
from tollmeter.embedded.addresses import Addresses, reachable, server_host
from tollmeter.embedded.environment import FRUGAL, bare_environment, passwords, settings_environment
from tollmeter.embedded.jars import EmbeddedError
from tollmeter.embedded.patience import Patience, demand_s
from tollmeter.embedded.supervisor import Program, Running, Supervisor
from tollmeter.schemas.money import FX_COLUMNS
from tollmeter.settings import Settings

STAGES = ("price", "ledger", "watch")
NOTIFY, SERVER = "notify", "serve"
BROKER, FRONT = "broker", "front"
_ATTEMPTS = 3
_ENDS = 4
"""A worker that has ended so often while the stack starts has a reason that does not pass."""


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
        kafka_port: int | None = None,
        clickhouse_port: int | None = None,
        announced: bool = False,
    ) -> None:
        """Ports move the stack, 0 to any free one; None: those it had. `announced`: found from any folder."""
        self.data_dir = data_dir.absolute()
        self._moves = {"kafka": kafka_port, "clickhouse": clickhouse_port}
        self._announced = announced
        self._wish = (settings or Settings()).model_copy(update={"data_dir": self.data_dir})
        self._own_rates = not self._wish.fx_file
        if self._own_rates:
            self._wish = self._wish.model_copy(update={"fx_file": str(self.data_dir.absolute() / stacks.RATES)})
        self.settings = self._wish
        self._workers = tuple(workers)
        self._note = note
        self._exit = ExitStack()
        self._ready = False
        self._written: dict[str, Any] = {}
        self._addresses: Addresses
        self._looked_at = 0.0
        self._patience: Patience
        self.supervisor: Supervisor

    def __enter__(self) -> "Stack":
        """Return when everything is ready. Raises `EmbeddedError`, `AlreadyRunningError`, `ProvisionError`."""
        with ExitStack() as exit_stack:
            exit_stack.enter_context(state.owner(self.data_dir, announced=self._announced))
            secret.ensure(self.data_dir)
            if self._own_rates:
                self._begin_rates(Path(self._wish.fx_file))
            self._addresses = Addresses(self.data_dir, self._wish, self._moves, self._note)
            self._patience = Patience(self._wish.start_limit_s, time.monotonic())
            self.supervisor = Supervisor(self._note)
            exit_stack.callback(self._stop)
            self._start()
            self._exit = exit_stack.pop_all()
        return self

    def _begin_rates(self, file: Path) -> None:
        if not file.exists():
            file.write_text(",".join(FX_COLUMNS) + "\n", encoding="utf-8")

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
        self._await(lambda: [name for name in self._workers if not self.worker_ready(name)])
        self._ready = True
        self.write_state()

    def _start_servers(self, prepare: Callable[[int, int], list[str]]) -> None:
        """Start broker and front. Raises `_PortTakenError` when another program was quicker."""
        chosen = self._addresses.choose()
        kafka_port, http_port, controller_port = chosen
        self.settings = self._wish.model_copy(
            update={
                "kafka": f"127.0.0.1:{kafka_port}",
                "clickhouse": f"http://127.0.0.1:{http_port}",
                "clickhouse_user": "default",
                "clickhouse_password": SecretStr(passwords(self.data_dir)["default"]),
            }
        )
        self._note(f"starting the broker at {self.settings.kafka} and ClickHouse at {self.settings.clickhouse}")
        self.supervisor.start(self._front(http_port))
        command = prepare(kafka_port, controller_port)
        self.supervisor.start(Program(BROKER, command, bare_environment, self._log(BROKER)))
        try:
            self._await(self._absent_servers)
        except EmbeddedError as error:
            self.supervisor.stop(FRONT)
            self.supervisor.stop(BROKER)
            if ports.choose(chosen) == chosen:
                raise
            raise _PortTakenError(str(error)) from None
        self._addresses.keep(kafka_port, http_port)

    def _absent_servers(self) -> list[str]:
        if not probe.is_our_front(self.settings):
            return ["the broker", "ClickHouse"]
        return [] if probe.is_our_broker(self.settings, self._broker_dir) else ["the broker"]

    def _provision(self) -> list[provision.Step]:
        """Set up; a broker that listens may need a moment more on a busy machine."""
        while True:
            try:
                return provision.apply(self.settings)
            except UnreachableError as error:
                self._look(["the set-up"], str(error))
                time.sleep(0.2)

    def _front(self, port: int) -> Program:
        users = self.data_dir / "users.json"
        command = [sys.executable, "-m", "tollmeter.embedded.front", "--data", str(self.data_dir / "clickhouse")]
        command += ["--port", str(port), "--users", str(users)]
        return Program(FRONT, command, bare_environment, self._log(FRONT))

    def start_worker(self, stage: str, name: str = "") -> str:
        """Start a worker of a stage, a second one under another name; return its name without waiting."""
        name = name or stage
        ready = self.data_dir / "run" / f"{name}.ready"
        ready.parent.mkdir(exist_ok=True, mode=0o700)
        words = (stage,) if stage in (NOTIFY, SERVER) else ("worker", stage)
        command = [sys.executable, "-m", "tollmeter", *words]
        environment = partial(self._worker_environment, name, ready)
        self.supervisor.start(Program(name, command, environment, self._log(name), ready))
        return name

    def _worker_environment(self, name: str, ready: Path) -> dict[str, str]:
        listens = {"SERVER_PORT": str(self._addresses.server(os.environ))} if name == SERVER else {}
        return {
            **bare_environment(),
            **listens,
            **FRUGAL,
            **settings_environment(self.settings),
            "TOLLMETER_READY_FILE": str(ready),
            "TOLLMETER_HEALTH_FILE": str(self._health_file(name)),
            "TOLLMETER_HEALTH_PORT": str(self._addresses.health(name) if self._announced else 0),
        }

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
            **stacks.describe(self.settings),
            "server": self.health(SERVER),
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
        host = server_host(os.environ) if name == SERVER else self.settings.health_host
        return f"http://{reachable(host)}:{port}" if port else None

    @property
    def _broker_dir(self) -> Path:
        return self.data_dir / "kafka"

    def _log(self, name: str) -> Path:
        return self.data_dir / "logs" / f"{name}.log"

    def _await(self, missing: Callable[[], Sequence[str]]) -> None:
        """Return when nothing is missing any more. Raises `EmbeddedError` when it will not come."""
        while names := missing():
            self.write_state()
            for name, running in self.processes().items():
                if not running.alive and (name in (BROKER, FRONT) or running.restarts >= _ENDS):
                    raise EmbeddedError(f"{name} did not start: {_last_line(self._log(name))}")
            self._look(names, f"see {self.data_dir / 'logs'}")
            time.sleep(0.05)

    def _look(self, missing: Sequence[str], detail: str) -> None:
        """Say what is waited for, and end the wait when nothing moves or the limit is reached."""
        now = time.monotonic()
        if now < self._looked_at + 1.0:
            return
        self._looked_at = now
        processes = self.processes()
        pids = [running.process.pid for running in processes.values()]
        why = self._patience.look(now, demand_s(pids), (tuple(missing), tuple(pids)))
        if why:
            raise EmbeddedError(f"{', '.join(missing)} did not become ready {why}: {detail}")
        if self._patience.should_say(now):
            self._note(f"still waiting for {', '.join(missing)} ({self._patience.waited_s(now):.0f} s)")

    def _stop(self) -> None:
        names = [name for name in self.processes() if name not in (BROKER, FRONT)]
        self.supervisor.close([names, [FRONT], [BROKER]])


def _last_line(log: Path) -> str:
    try:
        lines = log.read_text(errors="replace").strip().splitlines()
    except OSError:
        lines = []
    return f"{lines[-1][:300]} (see {log})" if lines else f"see {log}"
