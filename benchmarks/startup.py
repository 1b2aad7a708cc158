"""How long `tollmeter up` takes from cached files to ready, and what all its processes weigh when nothing happens."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.measure import descendants, rss_mb, wait_for
from tollmeter.embedded import state
from tollmeter.embedded.stack import settings_environment
from tollmeter.settings import PREFIX, Settings

IDLE_S = 10.0
READY_WITHIN_S = 120.0


@dataclass(frozen=True, slots=True)
class StartResult:
    ready_s: float
    idle_rss_mb: float


def run_startup(folder: Path) -> StartResult:
    """Start the command in a fresh folder on free ports, wait, weigh, stop. Raises `TooLateError`."""
    settings = Settings(kafka="127.0.0.1:0", clickhouse="http://127.0.0.1:0", data_dir=folder)
    environment = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
    environment |= settings_environment(settings)
    started = time.monotonic()
    command = [sys.executable, "-m", "tollmeter", "up"]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for("tollmeter up being ready", lambda: _ready(folder, process), READY_WITHIN_S, pause=0.02)
        ready_s = time.monotonic() - started
        time.sleep(IDLE_S)  # what is weighed is rest: caches of the start are given back meanwhile
        weight = sum(rss_mb(pid) for pid in descendants(process.pid))
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)
    return StartResult(ready_s, weight)


def _ready(folder: Path, process: subprocess.Popen[bytes]) -> bool:
    if process.poll() is not None:
        raise RuntimeError(f"tollmeter up ended with code {process.returncode}; see {folder / 'logs'}")
    running = state.running(folder)
    return bool(running and running["ready"])
