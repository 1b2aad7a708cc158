"""`tollmeter up`, `status` and `down`: the whole line on this machine, started, seen and stopped as one."""

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any, TypeVar

import click

from tollmeter import stacks
from tollmeter.broker.layout import ProvisionError
from tollmeter.cli.notify import read_routes
from tollmeter.cli.output import Finding, UserError, err, json_option, print_json, print_table
from tollmeter.embedded import control, state
from tollmeter.embedded.jars import EmbeddedError
from tollmeter.installing import how_to_get
from tollmeter.settings import Settings, SettingsError

_ADDRESSES = ("TOLLMETER_KAFKA", "TOLLMETER_CLICKHOUSE")
_NEXT = (
    "tollmeter send --model gpt-4o --in 1000 --out 200",
    "tollmeter report calls --top 20",
    "tollmeter alerts follow",
)
Command = TypeVar("Command", bound=Callable[..., Any])
data_option = click.option(
    "--data", type=click.Path(file_okay=False, path_type=Path), help="The data folder [default: TOLLMETER_DATA_DIR]."
)


def _port_option(name: str, what: str) -> Callable[[Command], Command]:
    text = f"Move {what} to this port and keep it; 0 = any free one [default: the port it had]."
    return click.option(f"--{name}-port", type=click.IntRange(0, 65_535), help=text)


@click.command()
@data_option
@click.option("--detach", is_flag=True, help="Return when everything is ready and leave it running.")
@_port_option("kafka", "the broker")
@_port_option("clickhouse", "ClickHouse")
@click.pass_obj
def up(settings: Settings, /, data: Path | None, detach: bool, **moves: int | None) -> None:
    """Start the broker, ClickHouse and the workers; runs until Ctrl-C. Data is kept, and so are the ports."""
    data_dir = (data or settings.data_dir).absolute()
    _check_addresses(settings)
    if detach:
        _up_detached(data_dir, moves)
    else:
        _up(settings, data_dir, moves)


def _up(settings: Settings, data_dir: Path, moves: Mapping[str, int | None]) -> None:
    from tollmeter.embedded.stack import NOTIFY, SERVER, STAGES, Stack

    workers: tuple[str, ...] = STAGES
    if settings.notify_routes:
        read_routes(settings, None)  # a mistake in it is said now, not by a process that starts again and again
        workers = (*STAGES, NOTIFY)
    if serves():
        workers = (*workers, SERVER)
    else:
        _note(f"without the server and its pages: {how_to_get('server')}")
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    started = time.monotonic()
    try:
        with Stack(data_dir, workers=workers, settings=settings, note=_note, announced=True, **moves) as stack:
            _note(f"ready in {time.monotonic() - started:.1f} s; data in {data_dir}; stop with Ctrl-C")
            _print_next(data_dir)
            try:
                while True:
                    stack.write_state()
                    time.sleep(1.0)
            except KeyboardInterrupt:
                _note("stopping")
                for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                    signal.signal(number, signal.SIG_IGN)
        _note("stopped")
    except KeyboardInterrupt:
        _note("stopped before it was ready")
    except (EmbeddedError, ProvisionError) as error:
        raise UserError(str(error)) from None


def serves() -> bool:
    """Tell whether the server runs, too: it does where its extra is installed. Raises `UserError` for its settings."""
    if find_spec("uvicorn") is None or find_spec("starlette") is None:
        return False
    from tollmeter.server.settings import ServerSettings

    try:
        ServerSettings.from_environment(os.environ)
    except SettingsError as error:
        raise UserError(str(error)) from None
    return True


def _up_detached(data_dir: Path, moves: Mapping[str, int | None]) -> None:
    running = detached(data_dir, moves)
    server = f", server {running['server']}" if running.get("server") else ""
    _note(f"ready: kafka {running['kafka']}, clickhouse {running['clickhouse']}{server}; data in {data_dir}")
    _note("see `tollmeter status`; stop with `tollmeter down`")
    _print_next(data_dir)


def detached(data_dir: Path, moves: Mapping[str, int | None]) -> dict[str, Any]:
    """Start the supervisor on its own, repeat what it says until the stack is ready, and return what it wrote.

    Raises `UserError` when it does not start.
    """
    try:
        state.prepare(data_dir)
    except EmbeddedError as error:
        raise UserError(str(error)) from None
    log = data_dir / "logs" / "supervisor.log"
    log.parent.mkdir(exist_ok=True, mode=0o700)
    command = [sys.executable, "-m", "tollmeter", "up", "--data", str(data_dir)]
    for name, port in moves.items():
        command += [] if port is None else [f"--{name.replace('_', '-')}", str(port)]
    with open(log, "w", opener=partial(os.open, mode=0o600)) as out, log.open() as said:
        supervisor = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            return _wait_for(supervisor, data_dir, said)
        except KeyboardInterrupt:
            _note("it goes on starting: see `tollmeter status`, `tollmeter down`")
            raise


def _wait_for(supervisor: "subprocess.Popen[bytes]", data_dir: Path, said: IO[str]) -> dict[str, Any]:
    """Return what the supervisor wrote once it is ready. Raises `UserError` with its last line when it ends."""
    lines: list[str] = []
    while supervisor.poll() is None:
        running = stacks.running(data_dir)
        if running and running["pid"] == supervisor.pid and running["ready"]:
            return running
        _repeat(said, lines)
        time.sleep(0.05)
    problem = said.read().strip().splitlines() or lines
    raise UserError(problem[-1].removeprefix("tollmeter: ") if problem else f"the stack did not start: see {said.name}")


def _repeat(said: IO[str], lines: list[str]) -> None:
    """Print the supervisor's new notes; its errors are ours to raise."""
    while line := said.readline():
        lines.append(line.rstrip("\n"))
        if line[:1].isdigit():
            err.print(lines[-1])


@click.command()
@data_option
@json_option
@click.pass_obj
def status(settings: Settings, data: Path | None, as_json: bool) -> None:
    """Show the processes of the stack: up or down, memory, restarts, addresses, records and events waiting."""
    found = _meant(data)
    running, data_dir = found.document, found.folder
    if running is None or data_dir is None:
        if as_json:
            print_json({"running": False, "ready": False, "processes": []})
            raise click.exceptions.Exit(1)
        raise Finding(found.why)
    rows = control.processes(running)
    line = stacks.overlay(settings, {}, running)
    behind = control.lag(line, [row["name"] for row in rows if _is_stage(row)])
    rows = [{**row, "lag": behind.get(row["name"])} for row in rows]
    total = sum(row["rss_mb"] or 0 for row in rows)
    if as_json:
        addresses = {name: running.get(name) for name in ("kafka", "clickhouse", "server")}
        addresses["data_dir"] = str(data_dir)
        _, here, elsewhere = control.waiting_events(line, data_dir)
        waits = {"events_waiting": here, "events_waiting_elsewhere": elsewhere}
        ready = {"running": True, "ready": running["ready"]}
        print_json({**ready, **addresses, "processes": rows, "rss_mb": total, **waits})
    else:
        server = f", server {running['server']}" if running.get("server") else ""
        print_table(f"kafka {running['kafka']}, clickhouse {running['clickhouse']}{server}, {total} MB", rows)
        for text in _remarks(line, data_dir):
            err.print(text)
    if not all(row["up"] for row in rows):
        raise click.exceptions.Exit(1)


def _remarks(line: Settings, data_dir: Path) -> list[str]:
    """Return what else there is to say about a running stack, a line each."""
    from tollmeter.streams.price.book.fx import FxError
    from tollmeter.streams.price.book.fx_history import load_rates, stale_lines

    try:
        stale = stale_lines(load_rates(line.fx_file), datetime.now(UTC).date(), line.fx_max_age_days)
    except FxError as error:
        stale = str(error).splitlines()
    folder, here, elsewhere = control.waiting_events(line, data_dir)
    remarks = [f"users of ClickHouse (default, reader) and their passwords: {data_dir / 'users.json'}"]
    if here:
        remarks.append(f"{here:,} events of services wait on disk for this stack, in {folder}")
    if elsewhere:
        remarks.append(f"{elsewhere:,} events of services wait on disk for other stacks or clusters, in {folder}")
    return [*remarks, *stale]


def _meant(data: Path | None) -> stacks.Found:
    """Return the stack that is meant; which of several is not guessed. Addresses of another line do not matter here."""
    if data is not None:
        return stacks.at(data)
    found = stacks.find({name: value for name, value in os.environ.items() if name not in _ADDRESSES})
    if found.ambiguous:
        raise UserError(f"{found.why}, or use --data")
    return found


@click.command()
@data_option
def down(data: Path | None) -> None:
    """Stop the stack that runs in the data folder; the data stays."""
    found = _meant(data)
    try:
        stopped = found.folder is not None and control.down(found.folder)
    except TimeoutError as error:
        raise UserError(str(error)) from None
    _note("stopped" if stopped else found.why)


def _is_stage(row: dict[str, Any]) -> bool:
    return row["name"] not in ("supervisor", "broker", "front", "serve")


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
    found = stacks.find(os.environ)
    here = found.folder is not None and found.folder.absolute() == data_dir.absolute()
    prefix = "" if here else f"TOLLMETER_DATA_DIR={shlex.quote(str(data_dir))} "
    err.print("try next:")
    for command in _NEXT:
        err.print(f"  {prefix}{command}")
