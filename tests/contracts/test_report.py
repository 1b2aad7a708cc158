"""Reports and alerts as commands: exact keys for machines, readable tables for people, one line for every failure."""

import asyncio
import json
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer
from click.testing import CliRunner, Result

from tests import terminals
from tests.priced_rows import insert, row
from tests.terminals import command
from tollmeter.cli.alerts import alerts
from tollmeter.cli.report import report
from tollmeter.schemas import topics
from tollmeter.schemas.alert import Alert
from tollmeter.schemas.secrets import key_id
from tollmeter.settings import Settings
from tollmeter.sinks.clickhouse.client import connect

TOTALS = {
    "calls": 3,
    "prompt_tokens": 1_000,
    "output_tokens": 200,
    "usd_est": 0.0168,
    "refused": 0,
    "unpriced": 1,
    "usd_at_risk": 0.02,
    "estimated": 0,
    "corrected": 0,
    "subscription_calls": 0,
    "usd_subscription_value": 0.0,
    "price_books": ["b"],
    "fx_from": None,
    "fx_until": None,
    "calls_kept_from": None,
}
NOWHERE = Settings(clickhouse="http://127.0.0.1:1", kafka="127.0.0.1:1")


def run(settings: Settings, *arguments: str) -> Result:
    group = alerts if arguments[0] == "alerts" else report
    return CliRunner().invoke(group, arguments[1:], obj=settings)


def said(settings: Settings, *arguments: str) -> Any:
    result = run(settings, *arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


@pytest.fixture(scope="module", name="seeded")
def seeded_settings(ledger_settings: Settings) -> Settings:
    at = datetime.now(UTC) - timedelta(seconds=2)
    client = connect(ledger_settings)
    common = {"event_time": at, "received_at": at, "provider": "openai", "status": "OK"}
    rows = [
        row(
            1,
            **common,
            model_sent="gpt-4o",
            model_used="gpt-4o",
            api_key_id="k1",
            input_tokens=1_000,
            output_tokens=200,
            cost_nano=4_500_000,
            client_ip="10.0.0.1",
            request_id="r1",
            user_id="u1",
            operation_name="search",
            cost_rub_nano=405_000_000,
            price_book="b",
            rule_id="r",
            tags=[{"key": "team", "value": "a"}],
        ),
        row(2, **common, model_sent="o3", model_used="o3", api_key_id="k2", cost_nano=12_345_678, user_id="u2"),
        row(3, **common, model_sent="new", api_key_id="k2", at_risk_nano=20_000_000),
    ]
    insert(client, rows)
    rule = ("b", "r", "openai", "gpt-4o", '{"input_pico": 2500000}')
    client.insert_rows("price_rules", ("price_book", "rule_id", "provider", "model", "rule"), [rule])
    client.close()
    return ledger_settings


@pytest.mark.stack
def test_calls(seeded: Settings) -> None:
    rows = said(seeded, "report", "calls", "--top", "2")["rows"]
    assert [line["est_cost"] for line in rows] == [0.012345678, 0.0045]
    keys = ["ts", "model_sent", "model_used", "pt", "ot", "est_cost", "client_ip", "request_id", "api_key_id"]
    assert [list(line) for line in rows] == [keys, keys]
    assert [line["client_ip"] for line in rows] == [None, "10.0.0.1"]
    assert rows[1]["ts"].endswith("Z")
    assert datetime.fromisoformat(rows[1]["ts"]) < datetime.now(UTC)
    unknown = said(seeded, "report", "calls")["rows"][2]
    assert (unknown["est_cost"], unknown["unpriced"], unknown["usd_at_risk"]) == (None, 1, 0.02)


@pytest.mark.stack
@pytest.mark.parametrize("name", ["gpt-4o", "GPT-4o", "openai/gpt-4o", " OpenRouter/OpenAI/GPT-4o "])
def test_a_model_is_found_by_whatever_it_is_called(seeded: Settings, name: str) -> None:
    assert said(seeded, "report", "calls", "--model", name)["totals"]["calls"] == 1


@pytest.mark.stack
def test_a_key_stands_for_its_id(seeded: Settings, ledger_settings: Settings) -> None:
    secret = "sk-proj-" + "a1" * 20
    client = connect(ledger_settings)
    at = datetime.now(UTC) - timedelta(days=90)
    insert(client, [row(4, event_time=at, received_at=at, api_key_id=key_id(secret), cost_nano=7)], offset=9)
    client.close()
    found = said(seeded, "report", "spend", "--key", secret, "--since", "100d")
    assert [line["api_key_id"] for line in found["rows"]] == [key_id(secret)]


@pytest.mark.stack
@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--user", "nobody"], "no stored call has user 'nobody'"),
        (["--key", "k9", "--model", "gpt-5o"], "no stored call has model 'gpt-5o'"),
        (["--org", "typo"], "no stored call has org 'typo'"),
        (["--tag", "team=b"], "no stored call has tag 'team=b'"),
        (["--month", "2020-03"], "the first stored call was made 20"),
        (["--user", "u1", "--since", "1s"], ""),
    ],
)
def test_no_call_is_no_bare_zero(seeded: Settings, words: list[str], why: str) -> None:
    for kind in ("calls", "spend", "operations"):
        lines = run(seeded, "report", kind, *words).stdout.splitlines()
        reasons = [line for line in lines if line.startswith(("no stored", "the first stored"))]
        assert len(reasons) == (2 if "k9" in words else bool(why)), lines
        assert any(line.startswith(why) for line in reasons) == bool(why)


@pytest.mark.stack
def test_spend(seeded: Settings) -> None:
    found = said(seeded, "report", "spend", "--by", "model,key", "--since", "48h")
    assert list(found) == ["from", "until", "zone", "rows", "totals"]
    assert found["rows"] == [
        {"model": "o3", "api_key_id": "k2", "calls": 1, "prompt_tokens": 0, "output_tokens": 0, "usd_est": 0.0123},
        {
            "model": "gpt-4o",
            "api_key_id": "k1",
            "calls": 1,
            "prompt_tokens": 1_000,
            "output_tokens": 200,
            "usd_est": 0.0045,
        },
        {
            "model": "new",
            "api_key_id": "k2",
            "calls": 1,
            "prompt_tokens": 0,
            "output_tokens": 0,
            "usd_est": None,
            "unpriced": 1,
            "usd_at_risk": 0.02,
        },
    ]
    by_user = said(seeded, "report", "spend", "--by", "user", "--top", "2")
    assert [line["user_id"] for line in by_user["rows"]] == ["u2", "u1"]
    for totals in (found["totals"], by_user["totals"]):
        assert 0 <= totals.pop("age_s") < 10_000
        assert datetime.fromisoformat(totals.pop("as_of")) < datetime.now(UTC)
        assert totals == TOTALS


@pytest.mark.stack
def test_today_and_summary_and_operations(seeded: Settings) -> None:
    today = said(seeded, "report", "today")
    if said(seeded, "report", "calls", "--top", "1")["rows"][0]["ts"][:10] != today["day"]:
        assert today["totals"]["calls"] == 0  # midnight passed since the seed: those calls are yesterday's
        return
    assert today["zone"] == "UTC"
    assert {name: today["totals"][name] for name in TOTALS} == TOTALS
    assert today["totals"]["age_s"] >= 0
    assert sum(line["calls"] for line in today["rows"]) == 3
    summary = said(seeded, "report", "summary", "--user", "u1")
    expected = {"total_tokens": 1_200, "cost_rub": 0.405, "requests_count": 1}
    assert summary == {"success": True, "data": {"today": expected, "this_month": expected, "all_time": expected}}
    operations = said(seeded, "report", "operations", "--provider", "openai")["rows"]
    assert operations[1] == {"operation_name": "search", "calls": 1, "total_tokens": 1_200, "cost_usd": 0.0}
    assert list(operations[0]) == ["operation_name", "calls", "total_tokens", "cost_usd", "unpriced", "usd_at_risk"]
    everybody = said(seeded, "report", "summary")["data"]["today"]
    assert (everybody["cost_rub"], everybody["unpriced"], everybody["rub_at_risk"]) == (0.405, 2, 0.0)


@pytest.mark.stack
def test_a_period_and_filters(seeded: Settings) -> None:
    assert [line["api_key_id"] for line in said(seeded, "report", "calls", "--user", "u2")["rows"]] == ["k2"]
    mine = said(seeded, "report", "spend", "--by", "user", "--model", "gpt-4o", "--key", "k1")
    assert [line["user_id"] for line in mine["rows"]] == ["u1"]
    month = f"{datetime.now(UTC):%Y-%m}"
    whole = said(seeded, "report", "spend", "--by", "day", "--month", month, "--zone", "UTC")["rows"]
    assert sum(line["calls"] for line in whole) in (0, 3)  # 0: the month began since the seed
    nothing = said(seeded, "report", "spend", "--since", "2026-01-01", "--until", "2026-01-02T00:00:00Z")
    assert (nothing["rows"], nothing["totals"]["calls"], nothing["from"]) == ([], 0, "2026-01-01T00:00:00+00:00")
    zoned = run(seeded, "report", "calls", "--zone", "Asia/Kolkata").stdout
    assert "+0530" in zoned
    assert " Asia/Kolkata\n" in zoned
    assert "0 estimated, 0 corrected; age: the newest event came " in zoned
    assert "priced by b\n" in zoned


@pytest.mark.stack
def test_csv_is_for_spreadsheets(seeded: Settings) -> None:
    result = run(seeded, "report", "spend", "--by", "model,key", "--csv")
    assert result.stdout.splitlines() == [
        "model,api_key_id,calls,prompt_tokens,output_tokens,usd_est,refused,unpriced,usd_at_risk,label,owner,cost_centre",
        "o3,k2,1,0,0,0.0123,0,0,0.0,,,",
        "gpt-4o,k1,1,1000,200,0.0045,0,0,0.0,,,",
        "new,k2,1,0,0,,0,1,0.02,,,",
    ]


@pytest.mark.stack
@pytest.mark.parametrize("width", [80, 40])
def test_reports_fit_a_narrow_terminal(seeded: Settings, width: int) -> None:
    """The real command in a pseudo-terminal of that width, every report."""
    environment = {
        "TOLLMETER_CLICKHOUSE": seeded.clickhouse,
        "TOLLMETER_CLICKHOUSE_USER": seeded.clickhouse_user,
        "TOLLMETER_CLICKHOUSE_PASSWORD": seeded.clickhouse_password.get_secret_value(),
        "TOLLMETER_CLICKHOUSE_DATABASE": seeded.clickhouse_database,
    }
    for name in ("calls", "spend", "today", "summary", "operations"):
        shown = terminals.CODES.sub("", terminals.in_terminal(width, "report", name, **environment))
        table = shown.partition("total: ")[0]
        assert terminals.widest(table) <= width, shown
        assert "gpt-4o" in table or name in ("summary", "operations"), "a call without its model says little"
        assert "\x1b" not in terminals.in_terminal(width, "report", name, **environment, NO_COLOR="1")


@pytest.mark.stack
def test_find(seeded: Settings) -> None:
    (found,) = said(seeded, "report", "find", "r1")
    assert found["call"]["tags"] == {"team": "a"}
    assert found["ledger"]["cost_nano"] == 4_500_000
    assert found["price_rule"] == {"rule": '{"input_pico": 2500000}'}
    missing = run(seeded, "report", "find", "nope")
    assert (missing.exit_code, missing.stdout) == (1, "")
    assert "no call with id 'nope'" in missing.stderr


@pytest.mark.stack
@pytest.mark.parametrize(
    "command",
    [["calls"], ["spend", "--by", "user,ip"], ["today"], ["summary"], ["operations"], ["find", "r1"]],
    ids=lambda command: command[0],
)
def test_tables_are_for_people(seeded: Settings, command: Sequence[str]) -> None:
    result = run(seeded, "report", *command)
    assert result.exit_code == 0, result.output
    assert "1" in result.stdout
    if command[0] in ("calls", "spend", "operations"):
        assert "total: 0.0168 USD in 3 calls" in result.stdout
        assert "not in it: 1 calls of unknown cost, at most about 0.0200 USD" in result.stdout


@pytest.mark.stack
def test_alerts_come_back_as_they_were_sent(seeded: Settings) -> None:
    sent = [alert(number) for number in range(2)]
    client = connect(seeded)
    client.insert_rows("alerts", ("event", "appended_at"), [(one.wire().decode(), datetime.now(UTC)) for one in sent])
    client.close()
    assert said(seeded, "alerts", "list", "--since", "1h") == [one.cloudevent() for one in sent]
    table = run(seeded, "alerts", "list").stdout
    assert "it's 80 % [of] it" in table


@pytest.mark.stack
def test_alerts_follow(line_settings: Settings) -> None:
    sent = [alert(number) for number in range(3)]

    async def produce() -> None:
        async with AIOKafkaProducer(**line_settings.kafka_options()) as producer:
            for value in (b"\xff", b"[]", *(one.wire() for one in sent)):
                await producer.send_and_wait(line_settings.topic(topics.ALERTS), value, partition=0)

    asyncio.run(produce())
    result = run(line_settings, "alerts", "follow", "--from-start", "--limit", "3", "--json")
    assert result.exit_code == 0, result.output
    assert [json.loads(line) for line in result.stdout.splitlines()] == [one.cloudevent() for one in sent]
    people = run(line_settings, "alerts", "follow", "--from-start", "--limit", "1")
    assert "it's 80 % [of] it" in people.stdout


@pytest.mark.stack
def test_alerts_follow_begins_with_the_last_ones_and_says_that_it_waits(line_settings: Settings) -> None:
    """A second process, as people run it: what it shows before anything new is raised."""
    names = ("kafka", "topic_prefix", "group_prefix")
    environment = {f"TOLLMETER_{name.upper()}": str(getattr(line_settings, name)) for name in names}

    def follow(*options: str, lines: int) -> tuple[list[str], str]:
        process = subprocess.Popen(
            command("alerts", "follow", *options),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=terminals.environment(environment | {"PYTHONUNBUFFERED": "1"}),
        )
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            waits = process.stderr.readline()
            asyncio.run(produce(line_settings, replace(alert(9), text="a new one")))
            return [process.stdout.readline() for _ in range(lines)], waits
        finally:
            process.kill()
            process.communicate()

    new, waits = follow(lines=1)
    assert waits.startswith("no alert yet; waiting for alerts from 127.0.0.1:")
    assert "a new one" in new[0]
    for number in range(8):
        asyncio.run(produce(line_settings, alert(number % 7)))  # the first once more: it is one alert
    shown, waits = follow(lines=6)
    assert waits.startswith("5 of before; waiting for alerts from ")
    times = [line.split()[0] for line in shown]
    assert times[:5] == sorted(times[:5])
    assert sum("a new one" in line for line in shown) == 2, "the last of before, and the one that came"
    assert follow("--json", lines=1)[1].startswith("waiting for alerts from ")


async def produce(settings: Settings, one: Alert) -> None:
    async with AIOKafkaProducer(**settings.kafka_options()) as producer:
        await producer.send_and_wait(settings.topic(topics.ALERTS), one.wire(), partition=int(one.id, 16) % 4)


@pytest.mark.stack
def test_an_alert_is_listed_once_however_often_it_was_sent(seeded: Settings) -> None:
    first = alert(5)
    again = replace(first, received_at=first.received_at + timedelta(seconds=7))
    sent = datetime.now(UTC)
    client = connect(seeded)
    rows = [(again.wire().decode(), sent + timedelta(seconds=9)), (first.wire().decode(), sent)]
    client.insert_rows("alerts", ("event", "appended_at"), rows)
    seen = client.query("SELECT id, text, appended_at FROM alert_list WHERE id = {id:String}", {"id": first.id})
    client.close()
    assert [one for one in said(seeded, "alerts", "list") if one["id"] == first.id] == [first.cloudevent()]
    assert [(row["id"], row["text"]) for row in seen] == [(first.id, first.text)]


@pytest.mark.parametrize("command", [["report", "calls"], ["report", "today", "--json"], ["alerts", "list"]])
def test_an_unreachable_clickhouse_is_one_line(command: list[str]) -> None:
    result = run(NOWHERE, *command)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.splitlines()[-1] == (
        "Error: ClickHouse at http://127.0.0.1:1 does not answer: start it with 'tollmeter up', "
        "or set TOLLMETER_CLICKHOUSE to a server that runs"
    )


@pytest.mark.stack
def test_a_database_that_is_not_set_up_is_one_line(ledger_settings: Settings) -> None:
    result = run(ledger_settings.model_copy(update={"clickhouse_database": "not_there"}), "report", "today")
    assert result.exit_code == 2
    assert "is not set up: run 'tollmeter setup'" in result.stderr


@pytest.mark.stack
def test_a_missing_topic_is_one_line(line_settings: Settings) -> None:
    result = run(line_settings.model_copy(update={"topic_prefix": "nobody."}), "alerts", "follow")
    assert result.exit_code == 2
    assert "topic nobody.usage.alerts does not exist" in result.stderr


def test_an_unreachable_kafka_is_one_line() -> None:
    result = run(NOWHERE, "alerts", "follow")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "Kafka at 127.0.0.1:1 does not answer" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["spend", "--by", "colour"], "no column 'colour': choose from model, key, label, user"),
        (["spend", "--by", ""], "no column ''"),
        (["spend", "--by", "model;DROP TABLE x"], "no column"),
        (["spend", "--since", "5x"], "no span of time"),
        (["calls", "--since", "-3h"], "no span of time"),
        (["calls", "--top", "0"], "0 is not in the range"),
        (["find"], "Missing argument"),
        (["calls", "--since", "2026-13-01"], "--since: '2026-13-01' is no time"),
        (["calls", "--since", "99999999d"], "--since: '99999999d' is too long: at most 36500d"),
        (["calls", "--since", "1969-01-01"], "--since: '1969-01-01' is out of range"),
        (["calls", "--until", "tomorrow"], "--until: 'tomorrow' is no time"),
        (["calls", "--since", "2026-02-02", "--until", "2026-02-02"], "the period is empty"),
        (["spend", "--month", "2026-13"], "'2026-13-01' is no time"),
        (["spend", "--month", "May"], "'May' is no calendar day or month: write it like 2026-11-22 or 2026-11"),
        (["spend", "--month", "2026-11", "--since", "48h"], "a calendar day or month is a period by itself"),
        (["spend", "--zone", "Mars/Olympus"], "no time zone"),
        (["spend", "--csv", "--json"], "one form at a time"),
    ],
)
def test_a_wrong_option_is_one_clear_line(arguments: list[str], complaint: str) -> None:
    result = run(NOWHERE, "report", *arguments)
    assert result.exit_code == 2
    assert complaint in result.stderr


def alert(number: int) -> Alert:
    at = datetime.now(UTC).replace(microsecond=0) - timedelta(seconds=60 - number)
    return Alert(
        id=f"{number:032x}",
        kind="budget",
        severity="warning",
        org_id="o",
        scope="api_key",
        name="k µ",
        period="2026-11",
        received_at=at,
        text="it's 80 % [of] it",
        facts={"spent_nano": 2**60 + number},
    )


@pytest.mark.stack
def test_keys_go_by_their_labels(ledger_settings: Settings) -> None:
    """Two ids of one key are one row; an organisation's own name goes before the one for all."""
    at = datetime.now(UTC) - timedelta(hours=2)
    client = connect(ledger_settings)
    common = {"event_time": at, "received_at": at, "model_sent": "m", "model_used": "m", "operation_name": "labels"}
    insert(
        client,
        [
            row(201, **common, org_id="la", user_id="labelled", api_key_id="old", cost_nano=1_000_000),
            row(202, **common, org_id="la", user_id="labelled", api_key_id="new", cost_nano=2_000_000, revision=1),
            row(203, **common, org_id="lb", user_id="labelled", api_key_id="old", usage_source="ESTIMATED"),
            row(204, **common, org_id="lb", user_id="labelled", api_key_id="bare", cost_nano=4_000_000),
        ],
    )
    labels = [("*", "old", "shop", "ann", "47"), ("*", "new", "shop", "ann", "47"), ("lb", "old", "theirs", "", "")]
    names = ("org_id", "api_key_id", "label", "owner", "cost_centre")
    rows = [(f"label:{n}", json.dumps(dict(zip(names, values, strict=True))), n) for n, values in enumerate(labels)]
    client.insert_rows("registry", ("key", "value", "version"), rows)
    client.close()

    def spend(*options: str) -> dict[str, tuple[int, float | None]]:
        found = said(ledger_settings, "report", "spend", "--user", "labelled", "--by", "label", *options)["rows"]
        return {line["label"]: (line["calls"], line["usd_est"]) for line in found}

    assert spend() == {"shop": (2, 0.003), "": (1, 0.004), "theirs": (1, None)}
    assert spend("--label", "shop") == {"shop": (2, 0.003)}
    assert spend("--org", "lb") == {"": (1, 0.004), "theirs": (1, None)}
    by_key = said(ledger_settings, "report", "spend", "--by", "key", "--user", "labelled", "--org", "la")
    assert [(line["api_key_id"], line["label"], line["owner"]) for line in by_key["rows"]] == [
        ("new", "shop", "ann"),
        ("old", "shop", "ann"),
    ]
    assert (by_key["totals"]["corrected"], by_key["totals"]["estimated"]) == (1, 0)
    top = said(ledger_settings, "report", "calls", "--user", "labelled")["rows"]
    assert [line.get("label") for line in top] == [None, "shop", "shop", "theirs"]
    assert top[1]["cost_centre"] == "47"
    people = run(ledger_settings, "report", "calls", "--user", "labelled").stdout
    assert "theirs" in people
    assert "1 estimated, 1 corrected; age: the newest" in people
