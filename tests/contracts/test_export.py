"""Calls leave the ledger as lines that come back as the same calls, or as CSV; in pages, in order, nothing twice."""

import csv
import io
import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest
from click.testing import CliRunner

from tests.priced_rows import insert, row
from tollmeter.admin.reports import export
from tollmeter.cli import export as command
from tollmeter.producers.imports.log_lines import from_line
from tollmeter.settings import Settings
from tollmeter.sinks.clickhouse.client import connect

pytestmark = pytest.mark.stack

AT = datetime(2026, 11, 20, 10, 0, 0, 250_999, tzinfo=UTC)
KEYS = ["t", "severity", "request_id", "client_ip", "model_sent", "model_used", "prompt_chars", "usage", "est_cost"]
COMMON = {"event_time": AT, "received_at": AT, "org_id": "o", "provider": "openai", "model_sent": "gpt-4o"}
ROWS = [
    row(1, **COMMON, status="OK", request_id="r1", input_tokens=1_000, output_tokens=200, cost_nano=4_500_000),
    row(2, **COMMON, status="BLOCKED", request_id="r2", cost_nano=0, client_ip="10.0.0.1"),
    row(3, **COMMON, status="OK", request_id="=1+1", input_tokens=7, user_id="@sum", tags=[{"key": "a", "value": "b"}]),
    row(4, **{**COMMON, "event_time": AT + timedelta(days=1)}, status="OK", request_id="r4"),
    row(5, **{**COMMON, "org_id": "other"}, status="OK", request_id="r5", cost_nano=1),
    row(6, **COMMON, status="VOID", request_id="r6"),
]


@pytest.fixture(scope="module", name="seeded")
def seeded_settings(ledger_settings: Settings) -> Settings:
    client = connect(ledger_settings)
    insert(client, ROWS, offset=1)
    insert(client, ROWS[:2], offset=2)  # delivered twice
    client.close()
    return ledger_settings


def exported(settings: Settings, *options: str) -> str:
    result = CliRunner().invoke(command.export, ["--day", "2026-11-20", *options], obj=settings)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_lines_come_back_as_the_calls(seeded: Settings) -> None:
    lines = [json.loads(text) for text in exported(seeded, "--org", "o").splitlines()]
    assert [list(line)[:9] for line in lines] == [KEYS] * 3
    assert {line["severity"] for line in lines} == {"INFO"}
    assert {line["timestamp"] for line in lines} == {"2026-11-20T10:00:00.250Z"}
    assert [line["est_cost"] for line in lines] == [0.0045, 0.0, None], "as priced here; unknown is null"
    assert [line["client_ip"] for line in lines] == [None, "10.0.0.1", None]
    assert [line.get("status") for line in lines] == [None, "BLOCKED", None]
    again = [from_line(line) for line in lines]
    assert [event.status for event in again] == ["OK", "BLOCKED", "OK"]
    assert [event.reported_cost_nano for event in again] == [4_500_000, None, None]
    assert [event.input_tokens for event in again] == [1_000, 0, 7]


def test_csv_has_every_column_and_no_formula(seeded: Settings) -> None:
    rows = list(csv.DictReader(io.StringIO(exported(seeded, "--format", "csv"))))
    assert [found["request_id"] for found in rows] == ["r1", "r2", "'=1+1", "r5"]
    assert [found["cost_nano"] for found in rows] == ["4500000", "0", "", "1"]
    assert (rows[2]["user_id"], rows[2]["tags"]) == ("'@sum", '{"a": "b"}')
    assert rows[0]["event_time"] == "2026-11-20T10:00:00.250999Z"
    assert {"cost_usd", "price_status", "rule_id", "usage_source"} <= rows[0].keys()
    assert exported(seeded, "--format", "csv", "--org", "nobody") == ""


@pytest.mark.parametrize("page", [1, 2, 3])
def test_pages_end_nowhere_in_between(seeded: Settings, page: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "PAGE", page)
    documents = [json.loads(text) for text in exported(seeded, "--format", "json").splitlines()]
    assert [found["request_id"] for found in documents] == ["r1", "r2", "=1+1", "r5"]
    assert documents[2]["tags"] == {"a": "b"}
    assert exported(seeded, "--format", "csv").count("event_id") == 1, "one head"


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--day", "2026-11-31"], "'2026-11-31' is no time"),
        (["--day", "2026-11-20", "--since", "48h"], "a period by itself"),
        (["--day", "2026-11-20", "--month", "2026-11"], "a period by itself"),
        (["--format", "xml"], "'xml' is not one of"),
    ],
)
def test_a_wrong_option_is_one_clear_line(options: Sequence[str], complaint: str) -> None:
    result = CliRunner().invoke(command.export, options, obj=Settings(clickhouse="http://127.0.0.1:1"))
    assert result.exit_code == 2
    assert complaint in result.stderr
