"""Ten processes hammer one budget of 1.00 USD on the real line: they exceed it by no more than was computed."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from benchmarks.overshoot import run
from tollmeter.embedded.stack import settings_environment
from tollmeter.settings import Settings

pytestmark = pytest.mark.stack


@pytest.fixture
def start(line_settings: Settings, tmp_path: Path) -> Iterator[Callable[[str], None]]:
    """Start a worker of the line and wait until it is ready; all are gone after the test."""
    running: list[subprocess.Popen[bytes]] = []

    def start_one(stage: str) -> None:
        ready, log = tmp_path / f"{stage}.ready", tmp_path / f"{stage}.log"
        environment = {**os.environ, **settings_environment(line_settings), "TOLLMETER_READY_FILE": str(ready)}
        with log.open("wb") as out:
            command = [sys.executable, "-m", "tollmeter", "worker", stage]
            running.append(subprocess.Popen(command, env=environment, stderr=out, stdout=out))
        deadline = time.monotonic() + 60
        while not ready.exists():
            assert running[-1].poll() is None, log.read_text(encoding="utf-8")
            assert time.monotonic() < deadline, log.read_text(encoding="utf-8")
            time.sleep(0.05)

    yield start_one
    for process in running:
        process.kill()
        process.wait()


def test_ten_processes_overshoot_less_than_computed(line_settings: Settings, start: Callable[[str], None]) -> None:
    start("price")
    start("watch")
    found = run(line_settings, processes=10, seconds=20.0)
    assert found.bound_nano == 90_000_000
    assert found.bound_nano * 100 <= 20 * found.limit_nano
    assert found.spent_nano <= found.limit_nano + found.bound_nano, found
    assert found.spent_nano >= found.limit_nano // 2, found  # it held back, but not all: on a slow machine news is rare
    assert found.refused > 0
    assert found.unguarded_nano > found.limit_nano + found.bound_nano, found
