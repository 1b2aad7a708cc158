"""A class archive halves the CPU of the broker's start: made once per Java and set of jars, never required."""

import fcntl
import hashlib
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from tollmeter.embedded import kafka, ports
from tollmeter.embedded.jars import EmbeddedError

_TIMEOUT_S = 60.0


def archive(java: str, jars: Path) -> Path | None:
    """Return the archive of this Java and these jars, making it the first time; None where that does not work."""
    real = Path(java).resolve()
    digest = hashlib.sha256(f"{real} {real.stat().st_mtime_ns} {kafka.JVM}".encode()).hexdigest()[:12]
    target = jars.with_name(f"{jars.name}-{digest}.jsa")
    if not target.exists():
        with jars.with_name("jars.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not target.exists():
                with suppress(EmbeddedError, OSError, subprocess.TimeoutExpired):
                    _make(java, jars, target)
                if not target.exists():
                    target.touch()  # this Java cannot: do not try at every start
    return target if target.stat().st_size else None


def _make(java: str, jars: Path, target: Path) -> None:
    """Run a broker on an empty folder until it listens, and let it write down the classes it has loaded."""
    with tempfile.TemporaryDirectory(dir=target.parent, prefix="warm-") as name:
        folder = Path(name)
        port, controller_port = ports.choose([0, 0])
        command = kafka.prepare(java, jars, folder, port, controller_port, f"-XX:ArchiveClassesAtExit={folder}/made")
        with (folder / "log.txt").open("w") as log:
            broker = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            deadline = time.monotonic() + _TIMEOUT_S
            while broker.poll() is None and not ports.answers(port) and time.monotonic() < deadline:
                time.sleep(0.05)
            broker.terminate()
            broker.wait(_TIMEOUT_S)
        finally:
            broker.kill()
            broker.wait()
        (folder / "made").rename(target)
