"""How long `tollmeter up` takes from cached files to ready, and what all its processes weigh when nothing happens."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.measure import descendants, rss_mb, wait_for
from tollmeter import stacks
from tollmeter.embedded.jars import EmbeddedError
from tollmeter.settings import PREFIX

IDLE_S = 10.0
READY_WITHIN_S = 120.0


@dataclass(frozen=True, slots=True)
class StartResult:
    ready_s: float
    idle_rss_mb: float


def run_startup(folder: Path) -> StartResult:
    """Start the command in a fresh folder, wait, weigh, stop. Raises `TooLateError`, `EmbeddedError`."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
    log = folder / "up.log"
    started = time.monotonic()
    with log.open("w") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "tollmeter", "up", "--data", str(folder)], env=environment, stdout=out, stderr=out
        )
    try:
        wait_for("tollmeter up being ready", lambda: _ready(folder, process, log), READY_WITHIN_S, pause=0.02)
        ready_s = time.monotonic() - started
        time.sleep(IDLE_S)  # what is weighed is rest: caches of the start are given back meanwhile
        weight = sum(rss_mb(pid) for pid in descendants(process.pid))
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)
    return StartResult(ready_s, weight)


def _ready(folder: Path, process: subprocess.Popen[bytes], log: Path) -> bool:
    if process.poll() is not None:
        raise EmbeddedError(f"tollmeter up ended with code {process.returncode}: {log.read_text()[-300:].strip()}")
    running = stacks.running(folder)
    return bool(running and running["ready"])
