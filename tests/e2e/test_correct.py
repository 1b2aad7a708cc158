"""`correct` on a running line: ledger, rollup and live totals become what they had been if the truth had been sent."""

import asyncio
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import click
import pytest
from aiokafka import AIOKafkaProducer
from click.testing import CliRunner

from tests.usage_rows import avro, fields
from tests.workers import Workers
from tests.workers import send as send_record
from tollmeter.admin.corrections import Place, await_stored, plan, send, stored
from tollmeter.cli.output import UserError
from tollmeter.cli.root import tollmeter
from tollmeter.schemas import topics
from tollmeter.schemas.control import Correction
from tollmeter.schemas.envelope import correction_headers
from tollmeter.settings import Settings
from tollmeter.sinks.clickhouse.client import ClickHouse, connect
from tollmeter.streams.price.batch import price_batch
from tollmeter.streams.price.book.book import load
from tollmeter.streams.rules.windows.amend import parse

pytestmark = [pytest.mark.stack, pytest.mark.timeout(400)]

Eventually = Callable[..., Any]
Sums = dict[tuple[str, str], tuple[int, ...]]
STAGES = ("price", "ledger", "watch")
QUICK = {"checkpoint_s": 0.5, "rollup_quiet_s": 0.5, "clickhouse_timeout_s": 2.0}
EVENTS = 60


@pytest.fixture
def line(line_settings: Settings) -> Settings:
    return line_settings.model_copy(update=QUICK)


@pytest.fixture(autouse=True)
def _running(workers: Workers) -> None:
    """One worker per stage, which saves often."""
    workers.ready(*STAGES)


@pytest.fixture
def client(line: Settings) -> Iterator[ClickHouse]:
    client = connect(line)
    yield client
    client.close()


def ask(line: Settings, *arguments: str) -> tuple[int, Any]:
    """Run a command; return its exit code and its JSON document, or the line that it complains with."""
    runner = CliRunner()
    done = runner.invoke(tollmeter, [*arguments, "--json"], obj=line, standalone_mode=False)
    if isinstance(done.exception, click.ClickException):
        return done.exception.exit_code, done.exception.message
    if done.exception:
        raise done.exception
    return int(done.return_value or 0), json.loads(done.stdout)


def correct(line: Settings, *arguments: str) -> dict[str, Any]:
    code, found = ask(line, "correct", *arguments, "--wait", "60s")
    assert code == 0, found
    assert found["stored"]
    return dict(found)


async def _publish(line: Settings, events: list[dict[str, Any]]) -> None:
    producer = AIOKafkaProducer(**line.kafka_options())
    await producer.start()
    try:
        for number, event in enumerate(events):
            await producer.send(line.topic(topics.EVENTS), avro(event), partition=number % 4)
    finally:
        await producer.stop()


class _Record:
    partition, offset, key, headers = 0, 0, None, ()

    def __init__(self, value: bytes) -> None:
        self.value, self.timestamp = value, int(time.time() * 1000)


def sums(events: list[dict[str, Any]], line: Settings) -> Sums:
    """Calls, tokens and cost by organisation and user of events as PRICE prices them: the truth."""
    rows = price_batch([[_Record(avro(event)) for event in events]], load(line)).rows
    calls: Counter[tuple[str, str]] = Counter()
    found: dict[tuple[str, str], list[int]] = {}
    for row in rows.iter_rows(named=True):
        key = row["org_id"], row["user_id"]
        calls[key] += 1
        amounts = row["input_tokens"], row["output_tokens"], row["cost_nano"] or 0
        found[key] = [a + b for a, b in zip(found.get(key, [0, 0, 0]), amounts, strict=True)]
    return {key: (calls[key], *amounts) for key, amounts in found.items()}


LEDGER = """SELECT org_id, user_id AS name, count() AS calls, sum(input_tokens) AS input_tokens,
    sum(output_tokens) AS output_tokens, sum(ifNull(cost_nano, 0)) AS cost_nano FROM usage GROUP BY org_id, name"""
WINDOWS = """SELECT org_id, name, sum(calls) AS calls, sum(input_tokens) AS input_tokens,
    sum(output_tokens) AS output_tokens, sum(cost_nano) AS cost_nano
    FROM usage_windows FINAL WHERE level = {level:String} AND scope = 'user'
    GROUP BY org_id, name HAVING calls != 0 OR cost_nano != 0 OR input_tokens != 0"""
ROLLUP = """SELECT sum(calls) AS calls, sum(input_tokens) AS input_tokens, sum(output_tokens) AS output_tokens,
    sum(cost_nano) AS cost_nano FROM usage_daily"""


def added(client: ClickHouse, sql: str, **parameters: str) -> Sums:
    names = ("calls", "input_tokens", "output_tokens", "cost_nano")
    rows = client.query(sql, parameters)
    return {(row.get("org_id", ""), row.get("name", "")): tuple(int(row[name]) for name in names) for row in rows}


def check(client: ClickHouse, line: Settings, truth: list[dict[str, Any]], eventually: Eventually) -> dict[str, Any]:
    """Compare ledger, live totals and rollup with the truth, and ask `verify`."""
    expected = sums(truth, line)
    assert added(client, LEDGER) == expected
    for level in ("minute", "hour", "day", "month"):
        eventually(lambda: added(client, WINDOWS, level=level) == expected, 60)  # noqa: B023
    total = tuple(map(sum, zip(*expected.values(), strict=True)))
    eventually(lambda: added(client, ROLLUP) == {("", ""): total}, 60)
    code, found = ask(line, "verify", "--wait", "60s")
    assert (code, found["differences"]) == (0, [])
    assert found["distinct"] == found["ledger"] + found["voided"]
    assert found["ledger"] == len(truth)
    return dict(found)


def test_corrected_calls_count_as_if_the_truth_had_been_sent(
    line: Settings, client: ClickHouse, eventually: Eventually
) -> None:
    start_us = int(time.time() // 60 * 60 - 20 * 60) * 1_000_000
    plain = {"input_tokens": 1_000, "output_tokens": 100}
    sent = [fields(n, occurred_at=start_us + n * 1_000_000, **plain) for n in range(EVENTS)]
    late_us = start_us - 5 * 3_600_000_000
    sent += [fields(n, occurred_at=late_us + n * 1_000_000, **plain) for n in range(EVENTS, EVENTS + 8)]
    asyncio.run(_publish(line, sent))
    eventually(lambda: client.query("SELECT count() AS n FROM usage_events FINAL")[0]["n"] == len(sent), 90)
    truth = [dict(event) for event in sent]
    ids = [event["event_id"] for event in sent]

    found = correct(
        line,
        ids[0],
        "--set",
        "input_tokens=5000",
        "--set",
        "output_tokens=7",
        "--set",
        "usage_source=PROVIDER",
        "--reason",
        "the provider's own count",
    )
    truth[0] |= {"input_tokens": 5_000, "output_tokens": 7, "usage_source": "PROVIDER"}
    (row,) = found["rows"]
    assert (row["before"]["input_tokens"], row["after"]["input_tokens"], row["revision"]) == (1_000, 5_000, 1)
    assert row["cost_nano_after"] - row["cost_nano_before"] == found["difference_nano"] > 0

    correct(line, ids[1], "--set", "user_id=bob", "--set", "model_used=gpt-4o-mini")
    truth[1] |= {"user_id": "bob", "model_used": "gpt-4o-mini"}
    assert {"acme", truth[2]["org_id"]} & {"moved"} == set()
    correct(line, ids[2], "--set", "org_id=moved")
    truth[2]["org_id"] = "moved"
    # once more over the first, and one of the late ones, whose windows only a repair can mend
    correct(line, ids[0], "--set", "user_id=eve")
    truth[0]["user_id"] = "eve"
    correct(line, ids[EVENTS], ids[EVENTS + 1], "--set", "output_tokens=9")
    for at in (EVENTS, EVENTS + 1):
        truth[at]["output_tokens"] = 9
    bulk = [*ids[10:20], ids[EVENTS + 2]]
    assert correct(line, *bulk, "--void")["calls"] == len(bulk)
    truth = [event for event in truth if event["event_id"] not in bulk]

    checked = check(client, line, truth, eventually)
    assert checked["corrected"] == {"rows": 6 + len(bulk), "voided": len(bulk), "moved": 1}
    assert checked["voided"] == len(bulk)
    assert ask(line, "verify", "--since", "1h", "--wait", "60s")[1]["differences"] == []
    _again_and_wrongly(line, ids, client)
    truth = _at_once(line, client, ids[30], truth)
    check(client, line, truth, eventually)
    send_record(line, topics.PRICED, [(0, b"no rows", correction_headers(Correction(id="x", org_id="a", was=1), 2))])
    truth = _half_a_move(line, client, ids[31], truth)
    truth = _moved_twice_at_once(line, client, ids[32], truth)
    _mended(line, client, ids)
    check(client, line, truth, eventually)


def _again_and_wrongly(line: Settings, ids: list[str], client: ClickHouse) -> None:
    before = client.query("SELECT count() AS n FROM usage_events")[0]["n"]
    for again in (
        [ids[1], "--set", "user_id=bob"],
        [ids[2], "--set", "org_id=moved"],
        [ids[10], "--void"],
        [ids[4], "--reprice"],
    ):
        code, found = ask(line, "correct", *again)
        assert code == 0, "what is as it shall be is done"
        assert (found["calls"], found["unchanged"], found["difference_nano"], found["rows"]) == (0, 1, 0, [])
    for arguments, text in (
        (["0" * 8 + "-0000-0000-0000-" + "0" * 12, "--void"], "no call 00000000"),
        (["r1", "--void"], "'r1' is no event id"),
        ([ids[4]], "say what to correct"),
        ([ids[4], "--set", "cache_read_tokens=2000"], "cached (2000) and written (0) input exceed"),
        ([ids[4], "--set", "input_tokens=-5"], "input_tokens is -5"),
    ):
        code, said = ask(line, "correct", *arguments)
        assert (code, said.count("\n")) == (UserError.exit_code, 0)
        assert text in said
    code, found = ask(line, "correct", ids[4], "--void", "--dry-run")
    assert (code, found["dry_run"], found["stored"]) == (0, True, False)
    assert client.query("SELECT count() AS n FROM usage_events")[0]["n"] == before


def _at_once(line: Settings, client: ClickHouse, event_id: str, truth: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Two corrections of the same revision: the first in the log counts, and the other is told."""
    book, rows = load(line), stored(client, [event_id])
    first, second = (plan(rows, [event_id], Place(), parse([f"user_id={name}"]), book.price) for name in ("one", "two"))
    for sent in (first, second):
        send(line, sent.parts, "")
    for sent, conflicts in ((first, 0), (second, 1)):
        outcome = await_stored(client, sent, 60)
        assert (outcome.stored, len(outcome.conflicts)) == (True, conflicts)
    assert "another correction came first" in outcome.conflicts[0]
    return with_(truth, event_id, user_id="one")


def _half_a_move(
    line: Settings, client: ClickHouse, event_id: str, truth: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """A command that dies between the halves leaves the call counted twice; repeated it is whole."""
    whole = plan(stored(client, [event_id]), [event_id], Place(), parse(["org_id=moved"]), load(line).price)
    send(line, whole.parts[:1], "")
    code, found = ask(line, "verify", "--wait", "60s")
    assert (code, {one["name"]: one["amount"] for one in found["differences"]}) == (1, {"distinct = ledger": 1})
    correct(line, event_id, "--set", "org_id=moved")
    return with_(truth, event_id, org_id="moved")


def _moved_twice_at_once(
    line: Settings, client: ClickHouse, event_id: str, truth: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Two moves of one call: whoever asks afterwards hears that it stands in both, and how to take one back."""
    rows, price = stored(client, [event_id]), load(line).price
    for org in ("moved", "elsewhere"):
        sent = plan(rows, [event_id], Place(), parse([f"org_id={org}"]), price)
        send(line, sent.parts, "")
        outcome = await_stored(client, sent, 60)
        assert outcome.stored
    assert len(outcome.conflicts) == 1
    assert "stands under elsewhere and moved, counted 2 times" in outcome.conflicts[0]
    assert "--org elsewhere --void" in outcome.conflicts[0]
    correct(line, event_id, "--org", "elsewhere", "--void")
    return with_(truth, event_id, org_id="moved")


def with_(truth: list[dict[str, Any]], event_id: str, **changed: Any) -> list[dict[str, Any]]:
    return [event | changed if event["event_id"] == event_id else event for event in truth]


def _mended(line: Settings, client: ClickHouse, ids: list[str]) -> None:
    """Corrected rows that the ledger lost come back from their correction's record, as they shall be."""
    client.command("DELETE FROM usage_events WHERE event_id IN {ids:Array(UUID)}", {"ids": [ids[0], ids[2], ids[10]]})
    code, found = ask(line, "verify", "--wait", "60s")
    assert code == 1
    assert {"missing_in_ledger", "distinct = ledger"} <= {one["name"] for one in found["differences"]}
    code, found = ask(line, "verify", "--repair", "--wait", "60s")
    assert (code, found["differences"]) == (0, [])
