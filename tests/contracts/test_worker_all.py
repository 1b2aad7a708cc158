"""`worker all` is one supervisor: what it keeps alive ends with it, whatever ends it."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tollmeter.embedded.environment import settings_environment
from tollmeter.settings import Settings

pytestmark = [
    pytest.mark.stack,
    pytest.mark.skipif(sys.platform != "linux", reason="the kernel does it on Linux alone"),
]


@pytest.fixture
def parent(line_settings: Settings) -> Iterator["subprocess.Popen[str]"]:
    bare = {name: value for name, value in os.environ.items() if not name.startswith("TOLLMETER_")}
    environment = bare | settings_environment(line_settings) | {"TOLLMETER_HEALTH_PORT": "0"}
    command = [sys.executable, "-m", "tollmeter", "worker", "all"]
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
        yield process
        process.kill()


def children(pid: int) -> list[int]:
    return [int(child) for task in Path(f"/proc/{pid}/task").glob("*/children") for child in task.read_text().split()]


def alive(pid: int) -> bool:
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def stages(pid: int) -> set[str]:
    return {
        Path(f"/proc/{child}/cmdline").read_text().rpartition("worker\0")[2].split("\0")[0] for child in children(pid)
    }


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_no_child_outlives_it(
    parent: "subprocess.Popen[str]", eventually: Callable[..., Any], number: signal.Signals
) -> None:
    eventually(lambda: stages(parent.pid) == {"price", "ledger", "watch"}, timeout=120)
    pids = children(parent.pid)
    assert len(pids) == 3
    parent.send_signal(number)
    parent.communicate(timeout=120)
    assert parent.returncode == (-number if number == signal.SIGKILL else 0)
    eventually(lambda: not any(map(alive, pids)), timeout=60)


def test_a_killed_child_comes_back(parent: "subprocess.Popen[str]", eventually: Callable[..., Any]) -> None:
    eventually(lambda: stages(parent.pid) == {"price", "ledger", "watch"}, timeout=120)
    [first, *_] = pids = children(parent.pid)
    os.kill(first, signal.SIGKILL)
    eventually(lambda: len(set(children(parent.pid)) - set(pids)) == 1 and len(children(parent.pid)) == 3, timeout=120)
