"""`tollmeter up` as a user meets it: starts, starts again on the same data, stops without a trace, refuses a second."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from aiokafka import AIOKafkaProducer

from tests.forkserver import ForkServer
from tests.patience import eventually
from tollmeter import stacks
from tollmeter.embedded import state
from tollmeter.embedded.jars import MissingToolError, fetch, java
from tollmeter.embedded.stack import STAGES
from tollmeter.producers.client.spool import waiting
from tollmeter.schemas.codec import encode
from tollmeter.schemas.event import UsageEvent
from tollmeter.schemas.topics import EVENTS
from tollmeter.settings import Settings
from tollmeter.sinks.clickhouse.client import connect

pytestmark = pytest.mark.stack
PROCESSES = {"supervisor", "broker", "front", "serve", *STAGES}


@pytest.fixture(scope="module", autouse=True)
def _tools() -> None:
    try:
        java()
        fetch()
    except MissingToolError as missing:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(missing))


class Line:
    """The command line on one data folder; ports are the test's own, or the first two that are free."""

    def __init__(self, data_dir: Path, warm: ForkServer) -> None:
        self.data_dir, self._warm = data_dir, warm
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith("TOLLMETER_")}
        self.environment |= {
            "TOLLMETER_DATA_DIR": str(data_dir),
            "TOLLMETER_KAFKA": "127.0.0.1:0",
            "TOLLMETER_CLICKHOUSE": "http://127.0.0.1:0",
            "TOLLMETER_HEALTH_PORT": "0",
        }

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "tollmeter", *arguments]

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command; only one that starts a stack is a program of its own."""
        if arguments[0] != "up":
            return self._warm.run(arguments, self.environment, folder=Path.cwd(), timeout=600)
        return subprocess.run(
            self.command(*arguments), env=self.environment, capture_output=True, text=True, check=False
        )

    def status(self) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(self.run("status", "--json").stdout)
        return document

    def settings(self) -> Settings:
        running = stacks.running(self.data_dir)
        assert running is not None
        return stacks.overlay(Settings(), {}, running)


@pytest.fixture
def line(tmp_path: Path, forkserver: ForkServer) -> Iterator[Line]:
    made = Line(tmp_path / "data", forkserver)
    yield made
    made.run("down")


def alive(pids: set[int]) -> set[int]:
    found = set()
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, 0)
            if "State:\tZ" not in Path("/proc", str(pid), "status").read_text():
                found.add(pid)
    return found


def pids(line: Line) -> set[int]:
    return {row["pid"] for row in line.status()["processes"]}


async def send(settings: Settings, event: UsageEvent) -> None:
    producer = AIOKafkaProducer(**settings.kafka_options(), acks="all", enable_idempotence=True)
    try:
        await producer.start()
        await producer.send_and_wait(settings.topic(EVENTS), encode(event))
    finally:
        await producer.stop()


def calls(settings: Settings) -> int:
    client = connect(settings)
    try:
        [row] = client.query("SELECT count() AS calls FROM usage_events FINAL")
        return int(row["calls"])
    finally:
        client.close()


def event() -> UsageEvent:
    names = {"service": "test", "org_id": "acme", "provider": "openai", "model_sent": "gpt-4o"}
    counts = {"input_tokens": 1_000, "output_tokens": 200}
    return UsageEvent(event_id=str(uuid4()), occurred_at=datetime.now(UTC), status="OK", **names, **counts)


def test_up_twice_on_the_same_data(line: Line) -> None:
    """In the first run others have the ports that it shall have; in the second a worker is killed and comes back."""
    with strangers(line) as theirs:
        comes_up(line)
    settings = line.settings()
    assert not {settings.kafka, settings.clickhouse} & theirs
    asyncio.run(send(settings, event()))
    eventually(lambda: calls(settings) == 1, timeout=60)
    second = line.run("up")
    assert second.returncode == 2
    assert len(second.stderr.splitlines()) == 1
    assert "already runs" in second.stderr
    goes_down(line)

    comes_up(line)
    assert line.settings() == settings, "a folder keeps its ports"
    comes_back(line, "ledger")
    asyncio.run(send(settings, event()))
    eventually(lambda: calls(settings) == 2, timeout=60)
    goes_down(line)


@contextmanager
def strangers(line: Line) -> Iterator[set[str]]:
    """Ask for two ports that others have; yield the two addresses."""
    with socket.socket() as kafka, socket.socket() as clickhouse:
        for taken, name in ((kafka, "TOLLMETER_KAFKA"), (clickhouse, "TOLLMETER_CLICKHOUSE")):
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            scheme = "" if taken is kafka else "http://"
            line.environment[name] = f"{scheme}127.0.0.1:{taken.getsockname()[1]}"
        yield {line.environment["TOLLMETER_KAFKA"], line.environment["TOLLMETER_CLICKHOUSE"]}


def comes_up(line: Line) -> None:
    up = line.run("up", "--detach")
    assert up.returncode == 0, up.stderr
    assert up.stdout == ""
    for command in ("tollmeter send --model", "tollmeter report calls --top 20", "tollmeter alerts follow"):
        assert command in up.stderr
    status = line.status()
    assert (status["running"], status["ready"]) == (True, True)
    assert {row["name"]: row["up"] for row in status["processes"]} == dict.fromkeys(PROCESSES, True)
    assert 0 < status["rss_mb"] == sum(row["rss_mb"] for row in status["processes"])


def goes_down(line: Line) -> None:
    processes = pids(line)
    assert line.run("down").returncode == 0
    assert alive(processes) == set()
    assert line.run("status").returncode == 1
    assert line.run("down").returncode == 0


def comes_back(line: Line, name: str) -> None:
    """Kill a worker and wait until there is another."""
    before = next(row for row in line.status()["processes"] if row["name"] == name)
    os.kill(before["pid"], signal.SIGKILL)

    def after() -> Any:
        row = next(row for row in line.status()["processes"] if row["name"] == name)
        return row["up"] and row["restarts"] == 1 and row["pid"] != before["pid"]

    eventually(after, timeout=30)


def test_stopped_while_it_starts(line: Line) -> None:
    up = subprocess.Popen(line.command("up"), env=line.environment, stderr=subprocess.PIPE, text=True)
    eventually(lambda: (stacks.running(line.data_dir) or {}).get("processes", {}).get("broker"), timeout=60)
    processes = pids(line)
    up.send_signal(signal.SIGINT)  # what Ctrl-C sends
    _, text = up.communicate(timeout=600)
    assert up.returncode == 0, text
    assert "Traceback" not in text
    assert alive(processes) == set()


@pytest.mark.parametrize(
    ("name", "value"),
    [("TOLLMETER_KAFKA", "kafka.example.com:9092"), ("TOLLMETER_CLICKHOUSE", "https://ch.example.com:8443")],
)
def test_a_foreign_cluster_is_not_replaced(line: Line, name: str, value: str) -> None:
    line.environment[name] = value
    up = line.run("up")
    assert up.returncode == 2
    assert len(up.stderr.splitlines()) == 1
    assert name in up.stderr
    assert "tollmeter setup" in up.stderr


@pytest.mark.parametrize("tool", ["Java", "Maven"])
def test_a_missing_tool_names_both_ways_out(line: Line, tmp_path: Path, tool: str) -> None:
    line.environment |= {"PATH": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    line.environment.pop("JAVA_HOME", None)
    if tool == "Maven":
        (tmp_path / "java").symlink_to(java())
    for arguments in (["up"], ["up", "--detach"]):
        up = line.run(*arguments)
        assert up.returncode == 2
        assert len(up.stderr.splitlines()) == 1
        assert f"{tool} was not found" in up.stderr
        assert "docker compose up" in up.stderr


SERVICE = """
import sys
from tollmeter import UsageProducer
producer = UsageProducer(service="shop", org_id="acme", spool_dir=sys.argv[1])
for _ in sys.stdin:
    for _ in range(10):
        producer.record(provider="openai", model_sent="gpt-4o", status="OK", input_tokens=1, output_tokens=1)
    print(producer.flush(20), producer.counters.on_disk, flush=True)
"""


@contextmanager
def foreground(line: Line, number: signal.Signals, *options: str) -> Iterator[None]:
    """Run `up` as in a terminal; a signal ends it, and nothing of it is left."""
    log = line.data_dir.with_name("up.log")
    with log.open("w") as out:
        up = subprocess.Popen(line.command("up", *options), env=line.environment, stdout=out, stderr=out)
    try:
        eventually(lambda: stacks.running(line.data_dir) and line.status()["ready"], timeout=280)
        yield
        processes = pids(line)
        up.send_signal(number)
        code = up.wait(600)
    finally:
        up.kill()
        up.wait()
    assert code == (-signal.SIGKILL if number == signal.SIGKILL else 0), log.read_text()
    assert "Traceback" not in log.read_text()
    eventually(lambda: not alive(processes), timeout=10)


def test_a_running_service_finds_its_stack_again(line: Line, tmp_path: Path) -> None:
    """It was started elsewhere, without a setting; the stack ends by signals, loses its port, comes back at another."""
    elsewhere, spools = tmp_path / "elsewhere", tmp_path / "spool"
    elsewhere.mkdir()
    bare = {name: value for name, value in line.environment.items() if not name.startswith("TOLLMETER_")}
    with foreground(line, signal.SIGTERM):
        before = line.settings().kafka
        service = subprocess.Popen(
            [sys.executable, "-c", SERVICE, str(spools)],
            cwd=elsewhere,
            env=bare,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

        def call() -> str:
            assert service.stdin is not None
            assert service.stdout is not None
            service.stdin.write("\n")
            service.stdin.flush()
            return service.stdout.readline().strip()

        first = call()
    with service:
        assert first == "True 0"
        assert call() == "False 10"
        with socket.socket() as stranger:
            stranger.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            stranger.bind(("127.0.0.1", int(before.rpartition(":")[2])))
            stranger.listen()
            refused = line.run("up")
            assert refused.returncode == 2
            assert "--kafka-port" in refused.stderr
            with foreground(line, signal.SIGKILL, "--kafka-port", "0"):
                settings = line.settings()
                assert settings.kafka != before
                eventually(lambda: not sum(waiting(spools).values()), timeout=60)
                assert call() == "True 0"
                eventually(lambda: calls(settings) == 30, timeout=60)
    kept = state.read_ports(line.data_dir)
    assert settings.kafka == f"127.0.0.1:{kept.kafka}", "and that is its port from now on"
