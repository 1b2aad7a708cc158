"""Costs that no call shows, and stated keys of bills, in the real engine: statements, journal, allocation."""

import csv
import io
import json
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import polars as pl
import pytest
from click.testing import CliRunner

from tests.priced_rows import insert, row
from tollmeter.admin import close as closing
from tollmeter.admin import cost_lines
from tollmeter.admin.bills.reconcile import stated_keys
from tollmeter.admin.focus import failures
from tollmeter.admin.reports.asked import NO_FILTER, Asked
from tollmeter.cli.allocate import allocate
from tollmeter.cli.bills_cost import cost
from tollmeter.cli.close import close
from tollmeter.cli.export import export
from tollmeter.cli.report import report
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
OTHER = CostLine(org_id="umbra", name="extra", provider="openai", unit_nano=-7, currency="RUB", since="2026-12")


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


def test_a_period_has_the_lines_of_its_months_in_one_question(client: ClickHouse) -> None:
    """Of decades, too; each at the newest rate up to the end of its own month, unless that is too old."""
    put(client, 1, SEATS, PLAN.model_copy(update={"since": "2026-09", "until": ""}), OTHER)
    rates = [("b", date(2026, 9, 19), "EUR", 900_000_000, "x"), ("b", date(2026, 10, 21), "EUR", 700_000_000, "x")]
    for some in (rates, [("c", date(2026, 10, 21), "EUR", 600_000_000, "x")]):
        client.insert_rows("fx_rates", ("price_book", "day", "currency", "per_usd_nano", "source"), some)
    today = LATER.date()
    for since, until, org in ((1971, 2200, ""), (2026, 2027, "acme"), (2150, 2160, ""), (2020, 2021, "")):
        period = datetime(since, 1, 1, tzinfo=UTC), datetime(until, 1, 1, tzinfo=UTC)
        asked = Asked(*period, ZoneInfo("UTC"), {**NO_FILTER, "org_id": org})
        found = cost_lines.of_period(client, asked, today)
        for month in (f"{since}-01", "2026-09", "2026-10", "2026-12", "2027-01", f"{until - 1}-12"):
            within = month in set(asked.months())
            alone = [{**one, "month": month} for one in cost_lines.of_month(client, month, org, today)]
            assert [one for one in found if one["month"] == month] == (alone if within else []), month
    asked = asked._replace(since=datetime(2026, 9, 1, tzinfo=UTC), until=datetime(2027, 2, 2, tzinfo=UTC))
    plan = [one for one in cost_lines.of_period(client, asked, today) if one["name"] == "plan"]
    assert [(one["month"], one["cost_nano"] and 20 * 10**18 // one["cost_nano"], one["fx_date"]) for one in plan] == [
        ("2026-09", None, None),  # eleven days old
        ("2026-10", 600_000_000, "2026-10-21"),  # ten; of two of one day the one that came last
        ("2026-11", 800_000_000, "2026-11-26"),
        ("2026-12", None, None),
        ("2027-01", None, None),
        ("2027-02", None, None),
    ]
    assert {one["name"] for one in cost_lines.of_period(client, asked, today)} == {"seats", "plan", "extra"}
    assert cost_lines.of_period(client, asked._replace(since=asked.until - timedelta(hours=9)), today) == []


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
    words = ["--journal", "--since", "2026-10-01", "--until", "2026-12-01"]
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


CREDIT = CostLine(org_id="", name="promo", provider="openai", unit_nano=-5 * 10**9, since="2026-11", currency="EUR")


@pytest.mark.parametrize("version", ["1.2", "1.0"])
def test_a_focus_file_has_them_as_purchases_and_credits(
    client: ClickHouse, ledger_settings: Settings, tmp_path: Path, version: str
) -> None:
    put(client, 1, SEATS, PLAN, CREDIT)
    words = ["--focus", version, "--format", "parquet", "--month", "2026-11", "--output", str(tmp_path / "f.parquet")]
    done = CliRunner().invoke(export, words, obj=ledger_settings)
    assert done.exit_code == 0, done.output
    frame = pl.read_parquet(tmp_path / "f.parquet")
    assert failures(frame, version) == []
    beside = frame.filter(pl.col("ChargeCategory") != "Usage").sort("ChargeDescription")
    assert beside.select(
        "ChargeDescription", "ChargeCategory", "BilledCost", "ListUnitPrice", "PricingQuantity"
    ).rows() == [
        ("plan", "Purchase", Decimal(25), Decimal(25), Decimal(1)),
        ("promo", "Credit", Decimal("-6.25"), None, None),
        ("seats", "Purchase", Decimal(360), Decimal(30), Decimal(12)),
    ]
    assert beside["ConsumedQuantity"].null_count() == 3
    if version == "1.2":
        prices = beside.select("PricingCurrency", "PricingCurrencyListUnitPrice", "PricingCurrencyEffectiveCost").rows()
        assert prices == [
            ("EUR", Decimal(20), Decimal(20)),
            ("EUR", None, Decimal(-5)),
            ("USD", Decimal(30), Decimal(360)),
        ]
    statement, _ = closing.close(client, NOVEMBER, "", LATER)
    booked = statement.content["totals"]["cost_nano"] + statement.content["cost_line_totals"]["cost_nano"]
    assert int(frame["BilledCost"].sum() * 10**9) == booked
    only = CliRunner().invoke(export, [*words, "--model", "m"], obj=ledger_settings)
    assert only.exit_code == 0
    assert set(pl.read_parquet(tmp_path / "f.parquet")["ChargeCategory"]) == {"Usage"}


def test_what_no_rate_values_is_left_out_and_said(
    client: ClickHouse, ledger_settings: Settings, tmp_path: Path
) -> None:
    put(client, 1, SEATS, PLAN)
    client.command("TRUNCATE TABLE fx_rates")
    words = ["--focus", "1.2", "--format", "csv", "--month", "2026-11", "--output", str(tmp_path / "f.csv")]
    done = CliRunner().invoke(export, words, obj=ledger_settings)
    assert "left out: 1 costs without calls whose value in USD is not known" in done.stderr
    with (tmp_path / "f.csv").open(encoding="utf-8", newline="") as file:
        kinds = [row["ChargeCategory"] for row in csv.DictReader(file)]
    assert (kinds.count("Purchase"), kinds.count("Credit")) == (1, 0)


@pytest.mark.parametrize(("unit", "usd"), [(-3, -4), (-1, -1), (3, 4), (1, 1), (-2, -2), (2, 2), (-5, -6), (5, 6)])
def test_a_credit_is_rounded_as_its_amount(client: ClickHouse, unit: int, usd: int) -> None:
    """At 0.8 a dollar, half to even: 1.25 is 1, 2.5 is 2, 3.75 is 4, 6.25 is 6."""
    put(client, 1, PLAN.model_copy(update={"unit_nano": unit}))
    assert cost_lines.of_month(client, "2026-11", "", LATER.date())[0]["cost_nano"] == usd


def test_a_report_of_a_month_says_what_it_leaves_out(client: ClickHouse, ledger_settings: Settings) -> None:
    put(client, 1, SEATS, PLAN)
    said = "not in these sums: 2 costs without calls, 385.00 USD"
    for words, there in ((("--month", "2026-11"), True), (("--month", "2026-11", "--user", "u"), False)):
        done = CliRunner().invoke(report, ["spend", *words], obj=ledger_settings)
        assert done.exit_code == 0, done.output
        assert (said in done.stderr) == there
