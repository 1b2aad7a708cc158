"""The supervisor restarts what ends, ever more slowly, and leaves nothing behind; the pause is a pure rule."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tollmeter.embedded import ports
from tollmeter.embedded.addresses import Addresses
from tollmeter.embedded.backoff import LONGEST_S, STEADY_S, Backoff
from tollmeter.embedded.supervisor import Program, Supervisor
from tollmeter.settings import Settings

SLEEPER = "import time; time.sleep(600)"
STUBBORN = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('on', flush=True); time.sleep(600)"
)
_CHILD = f"subprocess.Popen([sys.executable, '-c', {SLEEPER!r}]).pid"
PARENT = f"import subprocess, sys, time; print({_CHILD}, flush=True); time.sleep(600)"


def test_the_pause_doubles_up_to_a_limit() -> None:
    state, pauses = Backoff(), []
    for _ in range(9):
        state, pause = state.after_exit(ran_s=1.0)
        pauses.append(pause)
    assert pauses == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0]


def test_a_steady_run_is_forgiven() -> None:
    tired = Backoff(failures=8)
    assert tired.after_exit(ran_s=STEADY_S) == (Backoff(1), 0.5)
    assert tired.after_exit(ran_s=STEADY_S - 0.1) == (Backoff(9), LONGEST_S)


def test_ever_more_failures_do_not_overflow() -> None:
    assert Backoff(failures=10**6).after_exit(0.0)[1] == LONGEST_S


@pytest.fixture
def notes() -> list[str]:
    return []


@pytest.fixture
def supervisor(notes: list[str]) -> Iterator[Supervisor]:
    made = Supervisor(notes.append)
    yield made
    made.close([])


def program(folder: Path, code: str, name: str = "it", **more: Any) -> Program:
    return Program(name, [sys.executable, "-c", code], os.environ.copy, folder / f"{name}.log", **more)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    status = Path("/proc", str(pid), "status")
    return not status.exists() or "State:\tZ" not in status.read_text()


def test_each_start_asks_for_the_environment_anew(
    supervisor: Supervisor, tmp_path: Path, eventually: Callable[..., Any]
) -> None:
    takes = iter(["taken", "free"])
    command = [
        sys.executable,
        "-c",
        "import os, time\nassert os.environ['PORT'] == 'free'\nprint('serves')\ntime.sleep(60)",
    ]
    log = tmp_path / "it.log"
    supervisor.start(Program("it", command, lambda: {"PORT": next(takes), "PYTHONUNBUFFERED": "1"}, log))
    eventually(lambda: "serves" in log.read_text())


def test_health_checks_leave_a_port_that_another_program_took(tmp_path: Path) -> None:
    notes: list[str] = []
    addresses = Addresses(tmp_path, Settings(), {}, notes.append)
    first = addresses.health("watch")
    with ports.listener(first):
        second = addresses.health("watch")
    assert second != first
    assert notes[-1] == f"port {first} is taken by another program: health checks of watch are at port {second}"
    assert addresses.health("watch") == second  # where it is looked for since


def test_what_ends_is_started_again(
    supervisor: Supervisor, notes: list[str], tmp_path: Path, eventually: Callable[..., Any]
) -> None:
    ready = tmp_path / "it.ready"
    first = supervisor.start(program(tmp_path, SLEEPER, ready_file=ready))
    ready.touch()
    supervisor.kill("it", signal.SIGKILL)
    eventually(lambda: supervisor.snapshot()["it"].restarts == 1 and supervisor.snapshot()["it"].alive)
    assert supervisor.snapshot()["it"].process.pid != first
    assert not ready.exists()  # the new process is not ready because the old one was
    assert notes == [f"it was ended by SIGKILL; again in 0.5 s (log: {tmp_path / 'it.log'})"]


def test_killed_without_restart_stays_down_until_resumed(supervisor: Supervisor, tmp_path: Path) -> None:
    supervisor.start(program(tmp_path, SLEEPER))
    supervisor.kill("it", signal.SIGKILL, restart=False)
    supervisor.snapshot()["it"].process.wait(300)
    assert supervisor.resume("it") == supervisor.snapshot()["it"].process.pid
    assert supervisor.snapshot()["it"].alive


def test_a_name_is_started_once(supervisor: Supervisor, tmp_path: Path) -> None:
    supervisor.start(program(tmp_path, SLEEPER))
    with pytest.raises(ValueError, match="started already"):
        supervisor.start(program(tmp_path, SLEEPER))


def test_an_unknown_command_is_noted_and_tried_again(
    supervisor: Supervisor, notes: list[str], tmp_path: Path, eventually: Callable[..., Any]
) -> None:
    supervisor.start(Program("it", ["/no/such/program"], os.environ.copy, tmp_path / "it.log"))
    eventually(notes.copy)
    assert "again in 0.5 s" in notes[0]
    assert (
        "/no/such/program" in (tmp_path / "it.log").read_text()
        or "FileNotFoundError" in (tmp_path / "it.log").read_text()
    )


def test_the_stubborn_are_killed_and_grandchildren_too(
    notes: list[str], tmp_path: Path, eventually: Callable[..., Any]
) -> None:
    supervisor = Supervisor(notes.append)
    pids = [
        supervisor.start(program(tmp_path, STUBBORN, "stubborn", stop_s=0.3)),
        supervisor.start(program(tmp_path, PARENT, "parent", stop_s=0.3)),
    ]
    grandchild = int(eventually(lambda: (tmp_path / "parent.log").read_text().strip()))
    eventually((tmp_path / "stubborn.log").read_text)
    supervisor.close([["parent"], ["stubborn"]])
    assert notes == ["stubborn did not stop in 0.3 s: killed"]
    assert supervisor.snapshot() == {}
    for pid in (*pids, grandchild):
        eventually(lambda pid=pid: not alive(pid))


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel ends orphans on Linux alone")
def test_a_killed_supervisor_leaves_no_orphan(tmp_path: Path, eventually: Callable[..., Any]) -> None:
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom tollmeter.embedded.supervisor import Program, Supervisor\n"
        f"log = Path({str(tmp_path / 'child.log')!r})\n"
        f"print(Supervisor(print).start(Program('it', [sys.executable, '-c', {SLEEPER!r}], dict, log)), flush=True)\n"
        "time.sleep(600)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    with parent.stdout:
        child = int(parent.stdout.readline())
    assert alive(child)
    parent.kill()
    parent.wait()
    eventually(lambda: not alive(child), timeout=10)


def test_what_a_program_writes_is_nobody_elses_to_read(
    supervisor: Supervisor, tmp_path: Path, eventually: Callable[..., Any]
) -> None:
    made = tmp_path / "made"
    supervisor.start(program(tmp_path / "logs", f"open({str(made)!r}, 'w').close(); {SLEEPER}"))
    eventually(made.exists)
    modes = {path.name: path.stat().st_mode & 0o777 for path in (made, tmp_path / "logs", tmp_path / "logs/it.log")}
    assert modes == {"made": 0o600, "logs": 0o700, "it.log": 0o600}


def test_a_long_log_is_put_aside(supervisor: Supervisor, tmp_path: Path) -> None:
    log = tmp_path / "it.log"
    log.write_bytes(b"x" * (11 << 20))
    started = time.monotonic()
    supervisor.start(program(tmp_path, SLEEPER))
    assert time.monotonic() - started < 10
    assert (tmp_path / "it.log.1").stat().st_size == 11 << 20
    assert log.stat().st_size == 0
