"""`python -m benchmarks.server`: what a call over HTTP costs until Kafka has acknowledged it, beside two other servers.

One process each, the same bodies: `tollmeter serve`; FastAPI with pydantic and aiokafka, installed once into a folder
of its own (Starlette where that cannot be had); and, where Go is installed, a floor that stores nothing. CPU is what
the kernel counted for the server, which holds on a busy machine, too; requests a second are what was left of it.
"""

import argparse
import asyncio
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks.measure import cpu_seconds, quantile, rss_mb, wait_for
from tollmeter.admin import setup as provision
from tollmeter.embedded import ports
from tollmeter.embedded.environment import settings_environment
from tollmeter.embedded.stack import Stack
from tollmeter.settings import Settings

CALL = {"model_sent": "gpt-4o", "input_tokens": 1_000, "output_tokens": 200, "user_id": "ann"}
BATCH = 100
FASTAPI = Path(__file__).parents[1] / "build" / "benchmarks" / "fastapi"
KEYS = {"API_KEY": "admin-key", "INGEST_KEY": "ingest-key", "INGEST_RPM": "0"}


@dataclass(frozen=True, slots=True)
class Target:
    """A server that runs: where, and the path that takes arrays."""

    pid: int
    port: int
    batch_path: str


def request_of(path: str, body: bytes) -> bytes:
    head = f"POST {path} HTTP/1.1\r\nhost: x\r\nx-ingest-key: ingest-key\r\ncontent-type: application/json\r\n"
    return head.encode() + b"content-length: %d\r\n\r\n" % len(body) + body


async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> None:
    """Send one request and read its answer. Raises `RuntimeError` for one that is no success."""
    writer.write(request)
    head = await reader.readuntil(b"\r\n\r\n")
    if not head.startswith((b"HTTP/1.1 201", b"HTTP/1.1 202")):
        raise RuntimeError(head.decode(errors="replace"))
    length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
    await reader.readexactly(int(length.partition(b":")[2]))


async def load(port: int, request: bytes, connections: int, seconds: float, rate: float = 0.0) -> list[float]:
    """Ask over so many connections for so long; return how long each answer took. `rate`: so many a second in all."""
    took: list[float] = []
    end = time.perf_counter() + seconds

    async def one(number: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        due = time.perf_counter() + (number / rate if rate else 0)
        while (began := time.perf_counter()) < end:
            if rate and began < due:
                await asyncio.sleep(due - began)
            start = max(began, due) if rate else began
            due += connections / rate if rate else 0
            await ask(reader, writer, request)
            took.append(time.perf_counter() - start)
        writer.close()

    await asyncio.gather(*(one(number) for number in range(connections)))
    return took


def measured(target: Target, path: str, body: bytes, events: int, connections: int, seconds: float) -> dict[str, float]:
    """Return CPU per event in microseconds and requests per second, after a warm-up."""
    request = request_of(path, body)
    asyncio.run(load(target.port, request, connections, seconds / 4))
    before, began = cpu_seconds(target.pid), time.perf_counter()
    took = asyncio.run(load(target.port, request, connections, seconds))
    cpu, spent = cpu_seconds(target.pid) - before, time.perf_counter() - began
    return {
        "cpu_us_per_event": round(cpu / (len(took) * events) * 1e6, 1),
        "requests_per_s": round(len(took) / spent),
        "p99_ms": round(quantile(took, 0.99) * 1e3, 1),
    }


def figures_of(target: Target, connections: int, seconds: float) -> dict[str, object]:
    """Measure one server: single calls, batches, and the latency of single calls at half of what it can do."""
    single = json.dumps(CALL).encode()
    batch = json.dumps([CALL] * BATCH).encode()
    found: dict[str, object] = {}
    one = measured(target, "/ingest", single, 1, connections, seconds)
    found["single"] = one
    found[f"batch_of_{BATCH}"] = measured(target, target.batch_path, batch, BATCH, 8, seconds)
    half = one["requests_per_s"] / 2
    took = asyncio.run(load(target.port, request_of("/ingest", single), 16, seconds, half))
    found["half_load"] = {
        "requests_per_s": round(half),
        **{f"p{share}_ms": round(quantile(took, share / 100) * 1e3, 1) for share in (50, 99)},
    }
    found["rss_mb"] = round(rss_mb(target.pid))
    return found


@contextmanager
def running(command: list[str], environment: Mapping[str, str], port: int, batch_path: str) -> Iterator[Target]:
    process = subprocess.Popen(command, env={**os.environ, **environment})
    try:
        wait_for(f"{command[-1]} to listen", lambda: ports.answers(port), 60)
        yield Target(process.pid, port, batch_path)
    finally:
        process.terminate()
        process.wait(30)


def fastapi() -> tuple[str, dict[str, str]]:
    """Return which framework the plain server finds, and the environment in which it does."""
    if find_spec("fastapi"):
        return "fastapi", {}
    if not FASTAPI.exists():
        install = [sys.executable, "-m", "pip", "install", "--quiet", "--target", str(FASTAPI), "fastapi"]
        if subprocess.run(install, check=False).returncode:
            shutil.rmtree(FASTAPI, ignore_errors=True)
            return "starlette", {}
    return "fastapi", {"PYTHONPATH": str(FASTAPI)}


def compare(line: Settings, folder: Path, connections: int, seconds: float) -> dict[str, Any]:
    """Measure the servers one after the other on one broker."""
    ours, plain, floor = ports.choose([0, 0, 0])
    environment = {**settings_environment(line), **KEYS, "SERVER_PORT": str(ours), "TOLLMETER_SPOOL_DIR": str(folder)}
    found: dict[str, Any] = {"load": [round(os.getloadavg()[0], 1)]}
    with running([sys.executable, "-m", "tollmeter", "serve"], environment, ours, "/ingest") as target:
        found["tollmeter"] = figures_of(target, connections, seconds)
    topic = {"PLAIN_TOPIC": line.topic("usage.dlq")}  # any topic that is there and nobody reads
    command = [sys.executable, "-m", "benchmarks.plain_server", line.kafka, str(plain)]
    framework, environment = fastapi()
    with running(command, topic | environment, plain, "/batch") as target:
        found["plain"] = {"framework": framework, **figures_of(target, connections, seconds)}
    one, other = (found[name]["single"]["cpu_us_per_event"] for name in ("tollmeter", "plain"))
    found["single_cpu_of_plain"] = round(one / other, 2)
    if go := shutil.which("go"):
        binary = folder / "floor"
        source = Path(__file__).with_name("floor_server.go")
        subprocess.run(
            [go, "build", "-o", str(binary), str(source)], check=True, env={**os.environ, "GO111MODULE": "off"}
        )
        with running([str(binary), str(floor)], {}, floor, "/batch") as target:
            found["go_floor"] = figures_of(target, connections, seconds)
    found["load"].append(round(os.getloadavg()[0], 1))
    return found


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.server", description=__doc__)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=8.0, help="of each measurement [8]")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    chosen = parser.parse_args()
    wanted = Settings(kafka="127.0.0.1:0", clickhouse="http://127.0.0.1:0")
    with tempfile.TemporaryDirectory() as folder, Stack(Path(folder, "data"), workers=(), settings=wanted) as stack:
        provision.apply(stack.settings)
        figures = compare(stack.settings, Path(folder), chosen.connections, chosen.seconds)
    sys.stdout.write(json.dumps(figures, indent=None if chosen.json else 2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
