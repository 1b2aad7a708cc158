"""`tollmeter worker`: one stage in this process, or all three as children that are started again when they end."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from importlib import import_module

import click

from tollmeter.cli.output import UserError, err
from tollmeter.embedded.backoff import Backoff
from tollmeter.settings import Settings, SettingsError

STAGES = ("price", "ledger", "watch")
STOP_S = 20.0
POLL_S = 0.1


@click.command()
@click.argument("stage", type=click.Choice([*STAGES, "all"]))
@click.option(
    "--health-port",
    type=click.IntRange(0, 65_533),
    help="Port on 127.0.0.1 of /livez, /readyz, /startupz and /metrics; 0 = any free one, named in the log; "
    "`all` takes this one and the next two [default: TOLLMETER_HEALTH_PORT].",
)
@click.pass_obj
def worker(settings: Settings, stage: str, health_port: int | None) -> int:
    """Run a worker of one STAGE until SIGTERM or Ctrl-C; `all` runs the three side by side.

    Start as many of each as there is work for, up to the partition count.
    """
    port = settings.health_port if health_port is None else health_port
    if stage == "all":
        return Children(STAGES, port).run()
    from tollmeter.broker.layout import ProvisionError
    from tollmeter.sinks.clickhouse.client import Unavailable
    from tollmeter.streams.engine.app import BrokerError

    settings = settings.model_copy(update={"health_port": port})
    run: Callable[[Settings], int] = import_module(f"tollmeter.streams.{stage}.stage").run
    try:
        code = run(settings)
    except (BrokerError, ProvisionError, SettingsError, Unavailable) as error:
        raise UserError(str(error)) from None
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # an insert that hangs in its thread must not hold up a clean stop


class Children:
    """Child processes of this command line, restarted with a growing pause until this process is told to stop."""

    def __init__(self, stages: tuple[str, ...], health_port: int = 0) -> None:
        self._stages = stages
        self._ports = {stage: health_port and health_port + number for number, stage in enumerate(stages)}
        self._stopping = False
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._started: dict[str, float] = {}
        self._backoff = {stage: Backoff() for stage in stages}

    def run(self) -> int:
        """Return 0 after a clean stop."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        due = dict.fromkeys(self._stages, 0.0)
        while not self._stopping:
            for stage in self._stages:
                child = self._running.get(stage)
                if child is not None and child.poll() is None:
                    continue
                if child is not None:
                    due[stage] = self._after_exit(stage, child.returncode)
                if stage not in self._running and time.monotonic() >= due[stage]:
                    self._start(stage)
            time.sleep(POLL_S)
        return self._end()

    def _start(self, stage: str) -> None:
        self._started[stage] = time.monotonic()
        command = [sys.executable, "-m", "tollmeter", "worker", stage, "--health-port", str(self._ports[stage])]
        self._running[stage] = subprocess.Popen(command)

    def _after_exit(self, stage: str, code: int) -> float:
        del self._running[stage]
        self._backoff[stage], pause = self._backoff[stage].after_exit(time.monotonic() - self._started[stage])
        if not self._stopping:
            err.print(f"worker {stage} ended with code {code}; again in {pause:g} s")
        return time.monotonic() + pause

    def _stop(self, number: int, frame: object) -> None:
        self._stopping = True

    def _end(self) -> int:
        for child in self._running.values():
            child.terminate()
        deadline = time.monotonic() + STOP_S
        for child in self._running.values():
            try:
                child.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
        return 0
