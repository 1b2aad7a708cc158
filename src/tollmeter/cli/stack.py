"""`tollmeter up`, `status` and `down`: the whole line on this machine, started, seen and stopped as one."""

import os
import signal
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import click

from tollmeter.broker.layout import ProvisionError
from tollmeter.cli.notify import read_routes
from tollmeter.cli.output import Finding, UserError, err, json_option, print_json, print_table
from tollmeter.embedded import control, state
from tollmeter.embedded.jars import EmbeddedError
from tollmeter.settings import Settings

_NEXT = (
    "tollmeter send --model gpt-4o --in 1000 --out 200",
    "tollmeter report calls --top 20",
    "tollmeter alerts follow",
)
data_option = click.option(
    "--data", type=click.Path(file_okay=False, path_type=Path), help="The data folder [default: TOLLMETER_DATA_DIR]."
)


@click.command()
@data_option
@click.option("--detach", is_flag=True, help="Return when everything is ready and leave it running.")
@click.pass_obj
def up(settings: Settings, data: Path | None, detach: bool) -> None:
    """Start the broker, ClickHouse and the workers; runs until Ctrl-C. Data is kept."""
    data_dir = data or settings.data_dir
    _check_addresses(settings)
    if detach:
        _up_detached(data_dir)
    else:
        _up(settings, data_dir)


def _up(settings: Settings, data_dir: Path) -> None:
    from tollmeter.embedded.stack import NOTIFY, STAGES, Stack

    workers: tuple[str, ...] = STAGES
    if settings.notify_routes:
        read_routes(settings, None)  # a mistake in it is said now, not by a process that starts again and again
        workers = (*STAGES, NOTIFY)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    started = time.monotonic()
    try:
        with Stack(data_dir, workers=workers, settings=settings, note=_note) as stack:
            _note(f"ready in {time.monotonic() - started:.1f} s; data in {data_dir}; stop with Ctrl-C")
            _print_next(data_dir)
            try:
                while True:
                    stack.write_state()
                    time.sleep(0.5)
            except KeyboardInterrupt:
                _note("stopping")
                for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                    signal.signal(number, signal.SIG_IGN)
        _note("stopped")
    except KeyboardInterrupt:
        _note("stopped before it was ready")
    except (EmbeddedError, ProvisionError, state.AlreadyRunningError) as error:
        raise UserError(str(error)) from None


def _up_detached(data_dir: Path) -> None:
    log = data_dir / "logs" / "supervisor.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w") as out:
        supervisor = subprocess.Popen(
            [sys.executable, "-m", "tollmeter", "up", "--data", str(data_dir)],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    while supervisor.poll() is None:
        running = state.running(data_dir)
        if running and running["pid"] == supervisor.pid and running["ready"]:
            _note(f"ready; data in {data_dir}; stop with `tollmeter down`")
            _print_next(data_dir)
            return
        time.sleep(0.05)
    lines = log.read_text(errors="replace").strip().splitlines()
    raise UserError(lines[-1].removeprefix("tollmeter: ") if lines else f"the stack did not start: see {log}")


@click.command()
@data_option
@json_option
@click.pass_obj
def status(settings: Settings, data: Path | None, as_json: bool) -> None:
    """Show the processes of the stack: up or down, memory, restarts, addresses, records waiting."""
    data_dir = data or settings.data_dir
    running = state.running(data_dir)
    if running is None:
        if as_json:
            print_json({"running": False, "ready": False, "processes": []})
            raise click.exceptions.Exit(1)
        raise Finding(f"no stack runs on {data_dir}: start one with `tollmeter up`")
    rows = control.processes(running)
    behind = control.lag(state.overlay(settings, {}, running), [row["name"] for row in rows if _is_stage(row)])
    rows = [{**row, "lag": behind.get(row["name"])} for row in rows]
    total = sum(row["rss_mb"] or 0 for row in rows)
    if as_json:
        addresses = {"kafka": running["kafka"], "clickhouse": running["clickhouse"]}
        print_json({"running": True, "ready": running["ready"], **addresses, "processes": rows, "rss_mb": total})
    else:
        print_table(f"kafka {running['kafka']}, clickhouse {running['clickhouse']}, {total} MB", rows)
        err.print(f"users of ClickHouse (default, reader) and their passwords: {data_dir / 'users.json'}")
    if not all(row["up"] for row in rows):
        raise click.exceptions.Exit(1)


@click.command()
@data_option
@click.pass_obj
def down(settings: Settings, data: Path | None) -> None:
    """Stop the stack that runs in the data folder; the data stays."""
    data_dir = data or settings.data_dir
    try:
        stopped = control.down(data_dir)
    except TimeoutError as error:
        raise UserError(str(error)) from None
    _note("stopped" if stopped else f"no stack runs on {data_dir}")


def _is_stage(row: dict[str, Any]) -> bool:
    return row["name"] not in ("supervisor", "broker", "front")


def _check_addresses(settings: Settings) -> None:
    """`up` starts its own broker and ClickHouse; settings that name others are a misunderstanding."""
    host = settings.kafka.rpartition(":")[0]
    if host not in ("127.0.0.1", "localhost") or settings.kafka_security != "PLAINTEXT":
        raise UserError(
            f"TOLLMETER_KAFKA names {settings.kafka}, but `up` starts a broker of its own: unset it, "
            "or use that cluster with `tollmeter setup` and `tollmeter worker all`"
        )
    if not settings.clickhouse.startswith(("http://127.0.0.1", "http://localhost")):
        raise UserError(
            f"TOLLMETER_CLICKHOUSE names {settings.clickhouse}, but `up` starts its own: unset it, "
            "or use that server with `tollmeter setup` and `tollmeter worker all`"
        )


def _note(line: str) -> None:
    err.print(f"{datetime.now().astimezone():%H:%M:%S} {line}")


def _print_next(data_dir: Path) -> None:
    prefix = ""
    if data_dir.absolute() != Settings.from_environment(os.environ).data_dir.absolute():
        prefix = f"TOLLMETER_DATA_DIR={data_dir} "
    err.print("try next:")
    for command in _NEXT:
        err.print(f"  {prefix}{command}")
