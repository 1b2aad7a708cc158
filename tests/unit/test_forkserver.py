"""Children of the fork server are processes like any other: exit codes, streams, signals, and none is left behind."""

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.forkserver import ForkServer
from tests.patience import eventually


@pytest.fixture(scope="module")
def server() -> Iterator[ForkServer]:
    made = ForkServer()
    yield made
    made.close()


def test_a_command_runs_with_its_own_environment_folder_and_streams(server: ForkServer, tmp_path: Path) -> None:
    environment = {**os.environ, "TOLLMETER_KAFKA": "127.0.0.1:1", "TOLLMETER_DATA_DIR": str(tmp_path)}
    done = server.run(["send", "--model", "gpt-4o", "--spool-dir"], environment, folder=tmp_path, timeout=300)
    assert (done.returncode, done.stdout) == (2, "")
    assert "--spool-dir" in done.stderr
    done = server.run(["policy", "set", "--file", "none.yaml"], environment, folder=tmp_path, timeout=300)
    assert done.returncode == 2
    assert done.stderr.count("\n") >= 1
    done = server.run(["--version"], environment, folder=tmp_path, timeout=300)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("tollmeter, version ")


def test_a_child_can_be_waited_for_and_killed(server: ForkServer, tmp_path: Path) -> None:
    environment = {**os.environ, "TOLLMETER_DATA_DIR": str(tmp_path)}
    with (tmp_path / "log").open("wb") as log:
        child = server.start(["worker", "all"], environment, stdout=log, folder=tmp_path)
    assert child.poll() is None
    with pytest.raises(subprocess.TimeoutExpired):
        child.wait(0.05)
    child.kill()
    assert child.wait(300) == child.poll() == -signal.SIGKILL


def state(pid: int) -> str:
    """What `ps` says of a process: nothing of one that is gone, Z of one whose parent has not looked yet."""
    return subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False).stdout


def test_the_end_of_the_server_ends_its_children(tmp_path: Path) -> None:
    server = ForkServer()
    with (tmp_path / "log").open("wb") as log:
        child = server.start(["worker", "all"], {**os.environ, "TOLLMETER_DATA_DIR": str(tmp_path)}, stdout=log)
    server.close()
    assert child.wait(300) == -signal.SIGKILL
    eventually(lambda: state(child.pid)[:1] in ("", "Z"))
