"""Costs that no call shows, and stated keys of bills, in the real engine: statements, journal, allocation."""

import csv
import io
import json
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from tests.priced_rows import insert, row
from tollmeter.admin import close as closing
from tollmeter.admin import cost_lines
from tollmeter.admin.bills.reconcile import stated_keys
from tollmeter.cli.allocate import allocate
from tollmeter.cli.bills_cost import cost
from tollmeter.cli.close import close
from tollmeter.cli.export import export
from tollmeter.schemas.registry import BillKey, CostLine
from tollmeter.settings import Settings
from tollmeter.sinks.clickhouse.client import ClickHouse, connect

pytestmark = pytest.mark.stack

OCTOBER, NOVEMBER = date(2026, 10, 1), date(2026, 11, 1)
LATER = datetime(2027, 1, 5, tzinfo=UTC)
SEATS = CostLine(
    org_id="acme",
    name="seats",
    provider="anthropic",
    quantity=12,
    unit_nano=30 * 10**9,
    since="2026-10",
    cost_centre="R&D",
)
PLAN = CostLine(
    org_id="acme",
    name="plan",
    provider="openai",
    unit_nano=20 * 10**9,
    currency="EUR",
    since="2026-11",
    until="2026-11",
)


def put(client: ClickHouse, version: int, *entries: CostLine | BillKey) -> None:
    """Store rows of the registry as LEDGER does."""
    rows = [(entry.key, entry.model_dump_json(), version << 20) for entry in entries]
    client.insert_rows("registry", ("key", "value", "version"), rows)


@pytest.fixture(name="client")
def connected(ledger_settings: Settings) -> Any:
    client = connect(ledger_settings)
    for table in ("usage_events", "statements", "registry", "fx_rates"):
        client.command(f"TRUNCATE TABLE {table}")
    rates = [("b", date(2026, 11, 26), "EUR", 800_000_000, "x"), ("b", date(2026, 12, 1), "EUR", 500_000_000, "x")]
    client.insert_rows("fx_rates", ("price_book", "day", "currency", "per_usd_nano", "source"), rates)
    names = ("chat", "search", "", "search")
    calls = [
        row(
            number,
            event_time=datetime(2026, 10 + number % 2, 20, tzinfo=UTC),
            org_id="acme",
            provider="openai",
            model="m",
            api_key_id="shared",
            operation_name=names[number // 2],
            status="OK",
            cost_nano=1_000 * (number + 1),
        )
        for number in range(8)
    ]
    insert(client, calls, offset=1)
    yield client
    client.close()


def test_a_month_has_its_lines_with_their_value_in_usd(client: ClickHouse) -> None:
    put(client, 1, SEATS, PLAN)
    november = cost_lines.of_month(client, "2026-11", "", LATER.date())
    assert [(one["name"], one["amount_nano"], one["cost_nano"], one["fx_date"]) for one in november] == [
        ("seats", 360 * 10**9, 360 * 10**9, None),
        ("plan", 20 * 10**9, 25 * 10**9, "2026-11-26"),
    ]
    assert [one["name"] for one in cost_lines.of_month(client, "2026-10", "", LATER.date())] == ["seats"]
    assert [one["name"] for one in cost_lines.of_month(client, "2026-12", "acme", LATER.date())] == ["seats"]
    assert cost_lines.of_month(client, "2026-11", "umbra", LATER.date()) == []
    client.command("TRUNCATE TABLE fx_rates")
    assert [one["cost_nano"] for one in cost_lines.of_month(client, "2026-11", "", LATER.date())] == [360 * 10**9, None]


def test_a_statement_freezes_them_and_later_changes_are_booked_once(client: ClickHouse, tmp_path: Path) -> None:
    put(client, 1, SEATS, PLAN)
    october, _ = closing.close(client, OCTOBER, "", LATER)
    assert october.content["cost_line_totals"] == {"lines": 1, "cost_nano": 360 * 10**9, "without_usd": 0}
    put(client, 2, SEATS.model_copy(update={"quantity": 10}))
    assert closing.close(client, OCTOBER, "", LATER)[0].hash == october.hash
    november, _ = closing.close(client, NOVEMBER, "", LATER)
    (change,) = november.content["cost_line_adjustments"]
    assert (change["month"], change["name"], change["amount_nano"]) == ("2026-10", "seats", -60 * 10**9)
    assert sum(one["cost_nano"] for one in november.content["cost_lines"]) == (300 + 25) * 10**9
    assert (
        closing.line_drift(client, october, "", closing.standing(closing.statements(client, "")).values(), LATER) == []
    )


def test_commands_and_the_journal(client: ClickHouse, ledger_settings: Settings, tmp_path: Path) -> None:
    put(client, 1, SEATS, PLAN)
    listed = CliRunner().invoke(cost, ["list", "--month", "2026-11", "--json"], obj=ledger_settings)
    assert json.loads(listed.stdout)["totals"] == {"lines": 2, "cost_nano": 385 * 10**9, "without_usd": 0}
    files = ["--csv", str(tmp_path / "s.csv"), "--html", str(tmp_path / "s.html")]
    done = CliRunner().invoke(close, ["2026-10", *files], obj=ledger_settings)
    assert done.exit_code == 0, done.output
    assert "seats of anthropic, 12 a month: 360.00 USD" in done.stdout
    assert "seats of anthropic" in (tmp_path / "s.html").read_text(encoding="utf-8")
    rows = list(csv.DictReader(io.StringIO((tmp_path / "s.csv").read_text(encoding="utf-8"))))
    assert [(one["name"], one["amount_nano"]) for one in rows if one["name"]] == [("seats", str(360 * 10**9))]
    words = ["--journal", "--format", "csv", "--since", "2026-10-01", "--until", "2026-12-01"]
    journal = list(csv.DictReader(io.StringIO(CliRunner().invoke(export, words, obj=ledger_settings).stdout)))
    beside = [
        (one["period"], one["cost_centre"], one["currency"], float(one["amount"]))
        for one in journal
        if one["calls"] == "0"
    ]
    assert beside == [
        ("2026-10", "R&D", "USD", 360.0),
        ("2026-11", "", "EUR", 20.0),
        ("2026-11", "", "USD", 25.0),
        ("2026-11", "R&D", "USD", 360.0),
    ]


def test_the_cost_of_a_shared_key_is_shared(client: ClickHouse, ledger_settings: Settings) -> None:
    words = ["--by", "feature", "--key", "shared", "--since", "2026-10-01", "--until", "2026-12-01", "--json"]
    document = json.loads(CliRunner().invoke(allocate, words, obj=ledger_settings).stdout)
    # chat 1,000 + 2,000; search 3,000 + 4,000 + 7,000 + 8,000; without a name 5,000 + 6,000
    rows = [(one["name"], one["direct_nano"], one["share_nano"]) for one in document["rows"]]
    assert rows == [("search", 22_000, 9_680), ("chat", 3_000, 1_320)]
    assert document["total_nano"] == sum(1_000 * number for number in range(1, 9))
    more = json.loads(CliRunner().invoke(allocate, [*words, "--add", "0.000014"], obj=ledger_settings).stdout)
    assert sum(one["total_nano"] for one in more["rows"]) == more["total_nano"] == 50_000
    for wrong in (["--by", "tag:"], ["--by", "colour"], ["--by", "user", "--add", "much"]):
        refused = CliRunner().invoke(allocate, wrong, obj=ledger_settings)
        assert (refused.exit_code, "write" in refused.output) == (2, True)


def test_keys_of_bills_are_kept(client: ClickHouse) -> None:
    put(
        client,
        1,
        BillKey(provider="openai", ref="key_abc", api_key_id="k1"),
        BillKey(provider="x", ref="r", api_key_id="k2"),
    )
    assert stated_keys(client, "openai") == {"key_abc": "k1"}
    client.insert_rows(
        "registry",
        ("key", "value", "version"),
        [(BillKey(provider="openai", ref="key_abc", api_key_id="k").key, "", 9 << 20)],
    )
    assert stated_keys(client, "openai") == {}
