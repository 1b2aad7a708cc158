"""The compose file as shipped: an event sent to its Kafka becomes a priced row that `reader` sees and cannot change."""

import os
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import clickhouse_connect
import pytest
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import DatabaseError
from testcontainers.compose import DockerCompose

from tollmeter.producers.client.client import UsageProducer
from tollmeter.schemas.event import UsageEvent
from tollmeter.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
EVENT_ID = "7b0a4f52-2f0e-4c57-9f0e-5f6f4f0a9d11"


def docker_problem() -> str:
    """Say why there is no engine to run this on; "" when there is one."""
    docker = shutil.which("docker")
    if docker is None:
        return "no Docker: the client is not installed"
    for arguments, problem in ((["info"], "no engine answers"), (["compose", "version"], "no compose plugin")):
        if subprocess.run([docker, *arguments], check=False, capture_output=True, timeout=30).returncode:
            return f"no Docker: {problem}"
    return ""


pytestmark = [pytest.mark.docker, pytest.mark.timeout(1_200)]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture(scope="module")
def line() -> Iterator[dict[str, str]]:
    """The compose file on free ports with fresh passwords and volumes; everything is removed at the end."""
    problem = docker_problem()
    if problem:
        pytest.skip(problem)
    variables = {
        "COMPOSE_PROJECT_NAME": f"tollmeter-test-{secrets.token_hex(4)}",
        "KAFKA_PORT": str(free_port()),
        "CLICKHOUSE_PORT": str(free_port()),
        "TOLLMETER_CLICKHOUSE_PASSWORD": secrets.token_hex(8),
        "CLICKHOUSE_READER_PASSWORD": secrets.token_hex(8),
        "CLICKHOUSE_GRAFANA_PASSWORD": secrets.token_hex(8),
        "GRAFANA_ADMIN_PASSWORD": secrets.token_hex(8),
        "GRAFANA_PORT": str(free_port()),
        "SERVER_PORT": str(free_port()),
        "API_KEY": secrets.token_hex(8),
        "INGEST_KEY": secrets.token_hex(8),
    }
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        with DockerCompose(str(ROOT), build=True, wait=True, keep_volumes=False):
            yield variables
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def client(line: dict[str, str], user: str) -> Client:
    name = "TOLLMETER_CLICKHOUSE_PASSWORD" if user == "writer" else "CLICKHOUSE_READER_PASSWORD"
    return clickhouse_connect.get_client(
        host="127.0.0.1", port=int(line["CLICKHOUSE_PORT"]), username=user, password=line[name], database="tollmeter"
    )


def test_event_becomes_a_priced_row(line: dict[str, str]) -> None:
    settings = Settings(kafka=f"127.0.0.1:{line['KAFKA_PORT']}")
    event = UsageEvent(
        event_id=EVENT_ID,
        occurred_at=datetime.now(UTC),
        service="compose-test",
        org_id="acme",
        provider="openai",
        model_sent="gpt-4o",
        model_used="gpt-4o",
        status="OK",
        usage_source="PROVIDER",
        input_tokens=1_000,
        output_tokens=200,
    )
    with UsageProducer(settings) as producer:
        producer.record(event)
        assert producer.flush(30)
    reader = client(line, "reader")
    deadline = time.monotonic() + 60
    rows: list[tuple[object, ...]] = []
    while not rows and time.monotonic() < deadline:
        rows = list(
            reader.query(
                "SELECT toString(event_id), price_status, cost_nano FROM usage_events FINAL WHERE org_id = 'acme'"
            ).result_rows
        )
    assert rows == [(EVENT_ID, "PRICED", 4_500_000)]


def test_reader_only_reads(line: dict[str, str]) -> None:
    reader = client(line, "reader")
    for statement in (
        "TRUNCATE TABLE usage_events",
        "DROP TABLE usage_events",
        "SELECT * FROM url('http://x', 'RawBLOB')",
    ):
        with pytest.raises(DatabaseError):
            reader.command(statement)


def test_nobody_enters_without_a_password(line: dict[str, str]) -> None:
    with pytest.raises(DatabaseError):
        clickhouse_connect.get_client(host="127.0.0.1", port=int(line["CLICKHOUSE_PORT"]))


def test_set_up_again_changes_nothing(line: dict[str, str]) -> None:
    writer = client(line, "writer")
    before = writer.query(
        "SELECT name, create_table_query FROM system.tables WHERE database = 'tollmeter' ORDER BY name"
    )
    done = subprocess.run(
        ["docker", "compose", "run", "--rm", "setup"],
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    after = writer.query(
        "SELECT name, create_table_query FROM system.tables WHERE database = 'tollmeter' ORDER BY name"
    )
    assert before.result_rows == after.result_rows
