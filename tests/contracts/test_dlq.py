"""`tollmeter dlq` on the real broker: letters are listed once, tried again under their own id, three times at most."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer
from click.testing import CliRunner

from tests.usage_rows import as_json, avro, fields
from tests.workers import Workers
from tollmeter.admin.dead_letters import read_cases, retry
from tollmeter.cli.root import tollmeter
from tollmeter.schemas import topics
from tollmeter.schemas.dead_letter import SourcePlace, dead_letter_headers
from tollmeter.settings import Settings
from tollmeter.sinks.clickhouse.client import connect

pytestmark = pytest.mark.stack
Eventually = Callable[..., Any]


@pytest.fixture(autouse=True)
def _running(workers: Workers) -> None:
    """PRICE and LEDGER."""
    workers("price")
    workers("ledger")


def dlq(settings: Settings, *arguments: str) -> Any:
    done = CliRunner().invoke(tollmeter, ["dlq", *arguments, "--json"], obj=settings, standalone_mode=False)
    if done.exception:
        raise done.exception
    return json.loads(done.stdout)


def send(line: Settings, topic: str, *records: tuple[int, bytes | None, list[tuple[str, bytes]]]) -> None:
    async def work() -> None:
        producer = AIOKafkaProducer(**line.kafka_options())
        await producer.start()
        try:
            for partition, value, headers in records:
                await producer.send_and_wait(line.topic(topic), value, partition=partition, headers=headers)
        finally:
            await producer.stop()

    asyncio.run(work())


def test_retried_letters_count_their_attempts_and_end_after_three(line: Settings, eventually: Eventually) -> None:
    secret = "sk-proj-abcdefghijklmnop1234"
    text = as_json(fields(1, note=f"a {secret}"))  # an unknown field
    send(line, topics.EVENTS, (1, b"no event", []), (1, avro(fields(2)), []), (2, text, []))
    first = eventually(lambda: len(found := dlq(line, "list")) == 2 and found, 60)
    assert {(row["reason"], row["attempts"], row["state"]) for row in first} == {
        ("unknown_framing", 1, "waiting"),
        ("bad_value", 1, "waiting"),
    }
    shown = dlq(line, "show", "2/0")
    assert secret not in json.dumps(shown)
    assert "[secret]" in shown["value"]

    dry = dlq(line, "retry", "--reason", "unknown_framing", "--dry-run")
    assert (dry["would_retry"], dry["retried"]) == (1, 0)
    for attempts in (2, 3):
        assert dlq(line, "retry", "--reason", "unknown_framing")["retried"] == 1

        def rejected_again(attempts: int = attempts) -> bool:
            return ("unknown_framing", attempts) in {(row["reason"], row["attempts"]) for row in dlq(line, "list")}

        eventually(rejected_again, 30)
    done = dlq(line, "retry", "--all", "--dry-run")
    assert (done["would_retry"], done["skipped"]) == (1, {"exhausted": 1}), dlq(line, "list")
    assert len(dlq(line, "list")) == 2


async def _send_nothing(line: Settings) -> None:
    """Append a record with neither key nor value; our own client refuses to, others do not."""
    producer = AIOKafkaProducer(**line.kafka_options())
    await producer.start()
    try:
        batch = producer.create_batch()
        batch.append(key=None, value=None, timestamp=None)
        await (await producer.send_batch(batch, line.topic(topics.EVENTS), partition=0))
    finally:
        await producer.stop()


def test_records_without_key_and_value_and_withheld_secrets_become_letters(
    line: Settings, eventually: Eventually
) -> None:
    asyncio.run(_send_nothing(line))
    leaked = fields(1, api_key_id="sk-proj-abcdefghijklmnop1234")
    send(line, topics.EVENTS, (1, avro(leaked), []), (2, avro(fields(2)), []))
    send(line, topics.PRICED, (0, b"", []))
    found = eventually(lambda: len(rows := dlq(line, "list")) == 3 and rows, 60)
    assert {(row["reason"], row["state"], row["bytes"]) for row in found} == {
        ("empty", "waiting", 0),
        ("secret", "withheld", 0),
        ("bad_priced_record", "foreign", 0),
    }
    client = connect(line)
    eventually(lambda: client.query("SELECT count() AS n FROM usage_events") == [{"n": 1}], 30)
    client.close()


def test_letter_whose_cause_is_gone_becomes_one_row_however_often_it_is_tried(
    line: Settings, eventually: Eventually
) -> None:
    """As after an upgrade: records that read well now lie among the dead letters of PRICE and of LEDGER."""
    send(line, topics.EVENTS, (3, avro(fields(4)), [("tollmeter-backfill", b"1")]))
    events = line.topic(topics.EVENTS)
    of_price = dead_letter_headers("price", "bad_avro", "", SourcePlace(events, 0, 77))
    of_ledger = dead_letter_headers("ledger", "rejected", "", SourcePlace(events, 3, 0))
    gone = dead_letter_headers("ledger", "rejected", "", SourcePlace(events, 3, 99))
    send(line, topics.DLQ, (0, avro(fields(3)), of_price), (3, b"{}", of_ledger), (3, b"{}", gone))

    cases = [case for case in asyncio.run(read_cases(line)) if case.state == "waiting"]
    for _ in range(2):  # twice at once: nobody has seen the other's marks
        outcome = asyncio.run(retry(line, cases, 1_000))
        assert (outcome.retried, outcome.lost) == (2, 1)
    client = connect(line)
    asked = "toString(event_id) AS id, count() AS n, any(flags) AS mark"
    rows = f"SELECT {asked} FROM usage_events FINAL GROUP BY id ORDER BY id"
    marks = {3: "", 4: "backfill"}  # what LEDGER refused says so in its source record alone
    expected = [{"id": fields(n)["event_id"], "n": 1, "mark": mark} for n, mark in marks.items()]
    eventually(lambda: client.query(rows) == expected, 60)
    copies = "SELECT max(last_offset) AS last FROM ledger_coverage WHERE source_partition = 0"
    eventually(lambda: client.query(copies) == [{"last": 1}], 30)
    assert client.query(rows) == expected
    assert {row["state"] for row in dlq(line, "list") if not row["id"].endswith("/99")} == {"retried"}
    client.close()


def test_wrong_ids_and_no_choice_are_one_line(line_settings: Settings) -> None:
    for arguments, text in (
        (["show", "x/y"], "no id of a letter"),
        (["show", "1/5"], "no dead letter"),
        (["retry"], "say which letters"),
    ):
        done = CliRunner().invoke(tollmeter, ["dlq", *arguments], obj=line_settings, standalone_mode=False)
        assert text in str(done.exception)
        assert getattr(done.exception, "exit_code", 0) == 2
