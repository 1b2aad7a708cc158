"""`verify` on a running line: every planted difference is named and mended; marks of transactions are no gap."""

import asyncio
import json
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer
from click.testing import CliRunner

from tests.usage_rows import avro, fields
from tests.workers import Workers
from tollmeter.admin.verify import rollups
from tollmeter.admin.verify.alerts import read_alerts
from tollmeter.admin.verify.run import SLACK_S
from tollmeter.cli.root import tollmeter
from tollmeter.schemas import topics
from tollmeter.settings import Settings
from tollmeter.sinks.clickhouse.client import ClickHouse, connect

pytestmark = [pytest.mark.stack, pytest.mark.timeout(300)]

Eventually = Callable[..., Any]
STAGES = ("price", "ledger", "watch")
EVENTS = 400
QUICK = {"checkpoint_s": 0.5, "rollup_quiet_s": 0.5, "clickhouse_timeout_s": 2.0}


@pytest.fixture
def line(line_settings: Settings) -> Settings:
    return line_settings.model_copy(update=QUICK)


@pytest.fixture(autouse=True)
def _running(workers: Workers) -> None:
    """One worker per stage, which saves often."""
    workers.ready(*STAGES)


def verify(settings: Settings, *arguments: str) -> tuple[int, Any]:
    done = CliRunner().invoke(
        tollmeter, ["verify", "--wait", "60s", *arguments, "--json"], obj=settings, standalone_mode=False
    )
    if done.exception:
        raise done.exception
    return int(done.return_value or 0), json.loads(done.stdout)


async def _publish(settings: Settings, start_us: int) -> None:
    """Events of the last minutes: most in one transaction, one id at two times, one resend, one that is no event."""
    topic = settings.topic(topics.EVENTS)
    producer = AIOKafkaProducer(**settings.kafka_options(), transactional_id=f"verify-{time.time_ns()}")
    await producer.start()
    try:
        for begin in range(0, EVENTS, 100):  # each transaction leaves a mark in every partition
            async with producer.transaction():
                for n in range(begin, begin + 100):
                    event = fields(n, occurred_at=start_us + n * 1_000_000)
                    await producer.send(topic, avro(event), partition=n % 4)
        async with producer.transaction():
            first = fields(3, occurred_at=start_us + 3 * 1_000_000)
            other = fields(7, occurred_at=start_us + 11 * 60_000_000)
            for value in (avro(first), avro(other), b"no event"):
                await producer.send(topic, value, partition=1)
    finally:
        await producer.stop()


def amounts(document: dict[str, Any]) -> dict[str, int]:
    found: dict[str, int] = {}
    for difference in document["differences"]:
        found[difference["name"]] = found.get(difference["name"], 0) + difference["amount"]
    return found


def test_planted_differences_are_named_and_mended(line: Settings, eventually: Eventually) -> None:
    start_us = int(time.time() // 60 * 60 - 15 * 60) * 1_000_000
    asyncio.run(_publish(line, start_us))
    eventually(lambda: verify(line)[1]["voided"] == 1, 60, every=1.0)  # the later time of an id leaves by itself
    code, found = verify(line, "--deep")
    counted = {name: found[name] for name in ("records", "accepted", "rejected", "distinct", "resends", "ledger")}
    assert counted == {
        "records": EVENTS + 3,
        "accepted": EVENTS + 2,
        "rejected": 1,
        "distinct": EVENTS + 1,
        "resends": 1,
        "ledger": EVENTS,
    }
    assert found["deep"] == {name: counted[name] for name in found["deep"]}
    assert (code, amounts(found), found["voided"]) == (0, {}, 1)
    (listed,) = found["several_times"]
    assert (listed["event_id"], len(listed["times"]), listed["counted"]) == (fields(7)["event_id"], 2, 1)
    assert found["windows_compared"] > 100

    client = connect(line)
    _plant(client, line, eventually)
    code, found = verify(line)
    differs = amounts(found)
    assert code == 1
    assert {name: differs[name] for name in ("missing_in_ledger", "distinct = ledger", "cost_nano")} == {
        "missing_in_ledger": 1,
        "distinct = ledger": 1,
        "cost_nano": 7,
    }
    assert {"rollup_calls", "rollup_errors", "window_cost_nano", "window_calls"} <= set(differs)
    where = {difference["where"] for difference in found["differences"] if difference["name"] == "window_output_tokens"}
    assert any(place.startswith("month") and place.endswith("org acme, org") for place in where)

    code, found = verify(line, "--repair", "--alert")
    assert (code, found["differences"]) == (0, []), found["repaired"]
    code, found = verify(line, "--deep")
    assert (code, found["differences"], found["ledger"], found["voided"]) == (0, [], EVENTS, 1)
    assert [event["data"]["kind"] for event, _ in asyncio.run(read_alerts(line, 4))] == ["dead_letter"]  # as planted
    client.close()


def _plant(client: ClickHouse, line: Settings, eventually: Eventually) -> None:
    """Take a row away, change the cost of another, and change a group of the rollup and a month of the live totals."""
    # once the rollup will not compute its minutes again by itself
    counted = "SELECT * FROM usage_events FINAL WHERE status != 'VOID'"
    groups = f"SELECT uniqExact(toStartOfMinute(event_time), org_id, api_key_id) AS n FROM ({counted})"
    slack_s, epoch = QUICK["clickhouse_timeout_s"] + SLACK_S, datetime.fromtimestamp(0, tz=UTC)
    eventually(
        lambda: rollups.check(client, slack_s, epoch, epoch).compared >= client.query(groups)[0]["n"], 60, every=0.5
    )
    rows = client.query("SELECT event_id FROM usage_events FINAL WHERE org_id = 'acme' ORDER BY event_time LIMIT 2")
    gone, dear = (str(row["event_id"]) for row in rows)
    client.command("DELETE FROM usage_events WHERE event_id = {id:UUID}", {"id": gone})
    client.command(
        "INSERT INTO usage_events SELECT * REPLACE (version + 1 AS version, cost_nano + 7 AS cost_nano, "
        "inserted_at + INTERVAL 1 MICROSECOND AS inserted_at) FROM usage_events FINAL WHERE event_id = {id:UUID}",
        {"id": dear},
    )
    client.command(
        "INSERT INTO usage_minutes SELECT * REPLACE (errors + 1 AS errors, computed_at + INTERVAL 1 MICROSECOND AS "
        "computed_at) FROM usage_minutes FINAL WHERE calls > 0 LIMIT 1"
    )
    client.command(
        "INSERT INTO usage_windows SELECT * REPLACE (output_tokens + 5 AS output_tokens) FROM usage_windows FINAL "
        "WHERE org_id = 'acme' AND scope = 'org' AND level = 'month'"
    )


def test_difference_raises_an_alert_under_one_id(line: Settings, eventually: Eventually) -> None:
    async def send() -> None:
        producer = AIOKafkaProducer(**line.kafka_options())
        await producer.start()
        await producer.send_and_wait(line.topic(topics.EVENTS), avro(fields(1)), partition=0)
        await producer.stop()

    asyncio.run(send())
    client = connect(line)
    eventually(lambda: client.query("SELECT count() AS n FROM usage_events")[0]["n"], 60)
    client.command("DELETE FROM usage_events WHERE 1")
    for _ in range(2):
        code, _found = verify(line, "--since", "1h", "--alert")
        assert code == 1
    raised = [event for event, _ in asyncio.run(read_alerts(line, 4))]
    assert {(event["data"]["kind"], event["data"]["severity"]) for event in raised} == {
        ("verify_difference", "critical")
    }
    names = [event["data"]["name"] for event in raised]
    assert len(names) == len(set(names))
    assert "missing_in_ledger" in names
    client.close()
