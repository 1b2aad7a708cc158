"""A sum says what is missing in it for its age, and how many of its calls were refused: wherever it is shown."""

import json
from datetime import UTC, datetime, timedelta

import click
import pytest
from click.testing import CliRunner, Result

from tests.priced_rows import insert, row
from tollmeter.admin.kept import kept_within
from tollmeter.cli.export import export
from tollmeter.cli.report import report
from tollmeter.settings import Settings
from tollmeter.sinks.clickhouse.client import connect

pytestmark = pytest.mark.stack
LONG_AGO = "1995-01-01"
OLDER = """
INSERT INTO schema_migrations
SELECT * REPLACE ('0000_before.sql' AS name, toDateTime64('1990-01-01', 6, 'UTC') AS changed_at)
FROM schema_migrations LIMIT 1
"""
"""Makes the ledger older than what it keeps."""
DELETED = "are deleted for their age"
REPORTS = (
    ["spend"],
    ["spend", "--by", "user"],
    ["calls"],
    ["operations"],
    ["allocate", "--by", "feature"],
)


@pytest.fixture(scope="module", name="settings")
def with_calls(ledger_settings: Settings) -> Settings:
    """A young ledger with three calls of two minutes ago, two of them refused."""
    client, at = connect(ledger_settings), datetime.now(UTC) - timedelta(minutes=2)
    common = {"event_time": at, "received_at": at, "provider": "openai", "model": "o3", "model_sent": "o3"}
    refused = {"status": "BLOCKED", "price_status": "FREE", "cost_nano": 0}
    rows = [
        row(1, **common, status="OK", price_status="PRICED", cost_nano=5_000_000, operation_name="search"),
        row(2, **common, **refused, operation_name="search"),
        row(3, **common, **refused, operation_name="chat"),
    ]
    insert(client, rows)
    client.close()
    return ledger_settings


@pytest.fixture(scope="module", name="old")
def older(settings: Settings) -> Settings:
    client = connect(settings)
    client.command(OLDER)
    client.close()
    return settings


def run(command: click.Command, settings: Settings, *arguments: str) -> Result:
    result = CliRunner().invoke(command, arguments, obj=settings)
    assert result.exit_code == 0, result.output
    return result


@pytest.mark.parametrize("since", ["2h", "3h", LONG_AGO])
def test_refused_calls_stand_apart_of_the_calls(settings: Settings, since: str) -> None:
    """By minutes and by calls, in tables, JSON and CSV; they cost nothing."""
    for by in ("model", "user"):
        found = json.loads(run(report, settings, "spend", "--by", by, "--since", since, "--json").stdout)
        assert [(one["calls"], one["refused"], one["usd_est"]) for one in found["rows"]] == [(3, 2, 0.005)]
        assert (found["totals"]["calls"], found["totals"]["refused"]) == (3, 2)
        shown = run(report, settings, "spend", "--by", by, "--since", since).stdout
        assert "0.0050 USD in 3 calls (2 of them refused), " in " ".join(shown.split())
        head, line = run(report, settings, "spend", "--by", by, "--since", since, "--csv").stdout.splitlines()[:2]
        assert dict(zip(head.split(","), line.split(","), strict=True))["refused"] == "2"
    rows = json.loads(run(report, settings, "operations", "--since", since, "--json").stdout)["rows"]
    assert {one["operation_name"]: (one["calls"], one["refused"]) for one in rows} == {"search": (2, 1), "chat": (1, 1)}
    rows = json.loads(run(report, settings, "allocate", "--by", "feature", "--since", since, "--json").stdout)["rows"]
    assert [(one["name"], one["calls"]) for one in rows] == [("search", 1)], "refused calls share nothing"


@pytest.mark.parametrize("arguments", REPORTS, ids=" ".join)
def test_a_young_ledger_misses_nothing(settings: Settings, arguments: list[str]) -> None:
    assert DELETED not in run(report, settings, *arguments, "--since", LONG_AGO).output
    said = json.loads(run(report, settings, *arguments, "--since", LONG_AGO, "--json").stdout)
    assert said.get("totals", said)["calls_kept_from"] is None


@pytest.mark.parametrize("arguments", REPORTS, ids=" ".join)
def test_a_report_says_what_is_deleted_of_its_period(old: Settings, arguments: list[str]) -> None:
    edge = datetime.now(UTC) - timedelta(days=old.retention_events_days)
    shown = " ".join(run(report, old, *arguments, "--since", LONG_AGO).output.split())
    assert f"calls before {edge:%Y-%m-%d}" in shown
    assert f"UTC {DELETED}: they are missing here" in shown
    said = json.loads(run(report, old, *arguments, "--since", LONG_AGO, "--json").stdout)
    kept = datetime.fromisoformat(said.get("totals", said)["calls_kept_from"])
    assert abs(kept - edge) < timedelta(minutes=1)
    inside = f"{old.retention_events_days - 1}d"
    assert DELETED not in run(report, old, *arguments, "--since", inside).output
    said = json.loads(run(report, old, *arguments, "--since", inside, "--json").stdout)
    assert said.get("totals", said)["calls_kept_from"] is None


@pytest.mark.parametrize(
    "arguments",
    [[], ["--format", "csv"], ["--format", "json"], ["--focus", "1.2"], ["--journal"]],
    ids=" ".join,
)
def test_an_export_says_what_is_deleted_of_its_period(old: Settings, arguments: list[str]) -> None:
    result = run(export, old, *arguments, "--since", LONG_AGO)
    assert DELETED in " ".join(result.stderr.split())
    assert DELETED not in result.stdout
    assert DELETED not in run(export, old, *arguments, "--since", "24h").stderr


def test_all_time_and_what_was_stated_say_it_too(old: Settings) -> None:
    assert DELETED in " ".join(run(report, old, "summary").output.split())
    assert DELETED in " ".join(run(report, old, "reported", "--since", LONG_AGO).output.split())
    days = f"{old.retention_events_days - 10}d"
    assert DELETED in " ".join(run(report, old, "changes", "--since", days, "--against", "before").output.split())


def test_a_period_is_short_from_the_first_instant_that_may_be_deleted(old: Settings) -> None:
    client, now = connect(old), datetime(2026, 11, 30, tzinfo=UTC)
    edge = now - timedelta(days=old.retention_events_days)
    assert kept_within(client, edge, now) is None
    assert kept_within(client, edge - timedelta(microseconds=1), now) == edge
    client.command("ALTER TABLE usage_events REMOVE TTL")
    assert kept_within(client, edge - timedelta(days=9), now) is None, "calls are kept for ever"
    client.close()
