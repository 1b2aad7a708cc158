"""How long `tollmeter up` takes from cached files to ready, and what all its processes cost when nothing happens."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.measure import CpuMark, descendants, rss_mb, wait_for
from tollmeter import stacks
from tollmeter.embedded.jars import EmbeddedError
from tollmeter.settings import PREFIX

IDLE_S = 10.0
WATCHED_S = 60.0
READY_WITHIN_S = 120.0


@dataclass(frozen=True, slots=True)
class StartResult:
    ready_s: float
    idle_rss_mb: float
    idle_cpu_pct: dict[str, float]
    """Share of one processor, by process."""

    @property
    def idle_cpu_total_pct(self) -> float:
        """Return the share of all processes together."""
        return round(sum(self.idle_cpu_pct.values()), 1)


def run_startup(folder: Path) -> StartResult:
    """Start the command in a fresh folder, wait, weigh, stop. Raises `TooLateError`, `EmbeddedError`."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
    log, data = folder / "up.log", folder / "data"
    started = time.monotonic()
    with log.open("w") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "tollmeter", "up", "--data", str(data)], env=environment, stdout=out, stderr=out
        )
    try:
        wait_for("tollmeter up being ready", lambda: _ready(data, process, log), READY_WITHIN_S, pause=0.02)
        ready_s = time.monotonic() - started
        time.sleep(IDLE_S)  # what is weighed is rest: caches of the start are given back meanwhile
        weight = sum(rss_mb(pid) for pid in descendants(process.pid))
        cpu = _idle_cpu(data)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)
    return StartResult(ready_s, weight, cpu)


def _idle_cpu(data: Path) -> dict[str, float]:
    """Return the share of a processor that each process takes while nothing happens, in percent."""
    running = stacks.running(data)
    if running is None:
        raise EmbeddedError("tollmeter up has ended")
    pids = {"supervisor": running["pid"], **{name: row["pid"] for name, row in running["processes"].items()}}
    before = CpuMark.now(pids)
    time.sleep(WATCHED_S)
    after = CpuMark.now(pids)
    return {
        name: round(100 * (after.seconds[name] - before.seconds[name]) / (after.at - before.at), 2) for name in pids
    }


def _ready(folder: Path, process: subprocess.Popen[bytes], log: Path) -> bool:
    if process.poll() is not None:
        raise EmbeddedError(f"tollmeter up ended with code {process.returncode}: {log.read_text()[-300:].strip()}")
    running = stacks.running(folder)
    return bool(running and running["ready"])
