"""`tollmeter worker`: one stage in this process, or all three as children that are started again when they end."""

import os
import signal
import sys
import threading
from collections.abc import Callable
from importlib import import_module

import click

from tollmeter.cli.output import UserError, err
from tollmeter.embedded.supervisor import Program, Supervisor
from tollmeter.settings import Settings, SettingsError

STAGES = ("price", "ledger", "watch")


@click.command()
@click.argument("stage", type=click.Choice([*STAGES, "all"]))
@click.option(
    "--health-port",
    type=click.IntRange(0, 65_533),
    help="Port of /livez, /readyz, /startupz and /metrics at TOLLMETER_HEALTH_HOST; 0 = any free one, named in the "
    "log; `all` takes this one and the next two [default: TOLLMETER_HEALTH_PORT, else 9471, 9472 and 9473].",
)
@click.pass_obj
def worker(settings: Settings, stage: str, health_port: int | None) -> int:
    """Run a worker of one STAGE until SIGTERM or Ctrl-C; `all` runs the three side by side.

    Start as many of each as there is work for, up to the partition count.
    """
    port = settings.health_port if health_port is None else health_port
    if stage == "all":
        return _run_all(port)
    from tollmeter.broker.client import BrokerError
    from tollmeter.broker.layout import ProvisionError
    from tollmeter.sinks.clickhouse.client import Unavailable

    settings = settings.model_copy(update={"health_port": port})
    run: Callable[[Settings], int] = import_module(f"tollmeter.streams.{stage}.stage").run
    try:
        code = run(settings)
    except (BrokerError, ProvisionError, SettingsError, Unavailable) as error:
        raise UserError(str(error)) from None
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # an insert that hangs in its thread must not hold up a clean stop


def _run_all(port: int | None) -> int:
    """Keep the three stages running as children until told to stop; they end with this process, whatever ends it."""
    told = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: told.set())
    supervisor = Supervisor(err.print)
    try:
        for place, stage in enumerate(STAGES):
            command = [sys.executable, "-m", "tollmeter", "worker", stage]
            if port is not None:
                command += ["--health-port", str(port and port + place)]
            supervisor.start(Program(stage, command, os.environ.copy))
        told.wait()
    finally:
        supervisor.close([STAGES])
    return 0
