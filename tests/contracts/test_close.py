"""A closed month in the real engine: equal to a plain sum, frozen, its later changes booked once in the next."""

import json
from collections import defaultdict
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from tests.priced_rows import insert, row
from tollmeter.admin import close as closing
from tollmeter.cli.close import close
from tollmeter.settings import Settings
from tollmeter.sinks.clickhouse.client import ClickHouse, connect

pytestmark = pytest.mark.stack

OCTOBER, NOVEMBER = date(2026, 10, 1), date(2026, 11, 1)
BEGIN = datetime(2026, 10, 1, tzinfo=UTC)
LATER = datetime(2027, 1, 5, tzinfo=UTC)


def call(number: int, **more: Any) -> dict[str, Any]:
    """Return a call of October or, from 500 on, of November."""
    known = number % 11 != 0
    usd = number * 1_234_567 + 1
    fields = {
        "event_time": BEGIN + timedelta(hours=1.4 * number),
        "org_id": f"org{number % 2}",
        "provider": ("openai", "anthropic")[number % 3 == 0],
        "model": f"m{number % 4}",
        "api_key_id": f"=k{number % 5}",
        "status": "OK",
        "usage_source": "ESTIMATED" if number % 7 == 0 else "PROVIDER",
        "price_status": "PRICED" if known else "UNKNOWN_MODEL",
        "input_tokens": number,
        "output_tokens": 1,
        "cost_nano": usd if known else None,
        "cost_eur_nano": usd * 9 // 10 if known else None,
        "cost_rub_nano": usd * 90 if known and number % 13 else None,
        "at_risk_nano": None if known else 5,
        "price_book": "book-1",
        "revision": 0,
    }
    return row(number, **fields | more)


def plain(rows: list[dict[str, Any]]) -> dict[str, int]:
    """Add up rows in Python."""
    sums: dict[str, int] = defaultdict(int)
    for one in rows:
        sums["calls"] += 1
        for name in ("cost_nano", "cost_eur_nano", "cost_rub_nano", "at_risk_nano"):
            sums[name] += one[name] or 0
        sums["unpriced"] += one["cost_nano"] is None
        sums["estimated"] += one["usage_source"] == "ESTIMATED"
        sums["without_rub"] += one["cost_nano"] is not None and one["cost_rub_nano"] is None
    return dict(sums)


@pytest.fixture(name="client")
def connected(ledger_settings: Settings) -> Any:
    client = connect(ledger_settings)
    for table in ("usage_events", "statements"):
        client.command(f"TRUNCATE TABLE {table}")
    insert(client, [call(number) for number in range(900)], offset=1)
    yield client
    client.close()


def of(month: date) -> list[dict[str, Any]]:
    return [one for one in map(call, range(900)) if one["event_time"].month == month.month]


def test_a_statement_is_the_plain_sum_to_the_nano(client: ClickHouse) -> None:
    made, fresh = closing.close(client, OCTOBER, "", LATER)
    assert fresh
    expected = plain(of(OCTOBER))
    assert {name: made.content["totals"][name] for name in expected} == expected
    one = closing.close(client, OCTOBER, "org1", LATER)[0].content["totals"]
    assert one["cost_nano"] == plain([r for r in of(OCTOBER) if r["org_id"] == "org1"])["cost_nano"]


def test_later_changes_are_adjustments_once(client: ClickHouse) -> None:
    first, _ = closing.close(client, OCTOBER, "", LATER)
    again, fresh = closing.close(client, OCTOBER, "", LATER + timedelta(days=1))
    assert (again, fresh) == (first, False)
    late = call(5_000, event_time=BEGIN + timedelta(days=3), cost_nano=7, cost_eur_nano=6, cost_rub_nano=5)
    corrected = call(2, cost_nano=1, cost_eur_nano=1, cost_rub_nano=1, revision=1)
    insert(client, [late, corrected], offset=2)
    assert closing.close(client, OCTOBER, "", LATER)[0] == first
    change = sum(line["cost_nano"] for line in closing.drift(client, first, "", LATER) or [])
    assert change == 7 + 1 - call(2)["cost_nano"]
    november, _ = closing.close(client, NOVEMBER, "", LATER)
    assert sum(line["cost_nano"] for line in november.content["adjustments"]) == change
    assert {line["month"] for line in november.content["adjustments"]} == {"2026-10"}
    assert november.content["totals"]["cost_nano"] == plain(of(NOVEMBER))["cost_nano"]
    assert closing.drift(client, first, "", LATER) == []
    whole = client.query("SELECT sum(cost_nano) AS nano FROM usage_events FINAL WHERE toMonth(event_time) IN (10, 11)")
    booked = first.content["totals"]["cost_nano"] + november.content["totals"]["cost_nano"] + change
    assert booked == whole[0]["nano"]


@pytest.mark.parametrize("unknown", ["cost_nano", "cost_rub_nano"])
def test_a_statement_hashes_calls_without_a_known_cost_too(client: ClickHouse, unknown: str) -> None:
    """Two of them change places, so that every sum is as it was."""

    def hashes() -> tuple[str, str]:
        (group,) = [one for one in closing.current(client, OCTOBER, "") if one["org_id"] == "own"]
        assert (group["calls"], group["input_tokens"]) == (2, 7)
        return group["content"], group["mix"]

    def told(tokens: tuple[int, int], revision: int) -> None:
        same = {"org_id": "own", "provider": "openai", "model": "m", "api_key_id": "k", "event_time": BEGIN}
        costs = {"cost_nano": 5, "cost_eur_nano": 4, "cost_rub_nano": 3} | {unknown: None}
        made = [
            call(7_000 + n, **same, **costs, input_tokens=count, revision=revision) for n, count in enumerate(tokens)
        ]
        insert(client, made, offset=9 + revision)

    told((3, 4), 0)
    before = hashes()
    told((4, 3), 1)
    content, mix = hashes()
    assert content != before[0]
    assert mix != before[1]


def test_reopened_it_is_made_anew_and_nothing_is_booked_twice(client: ClickHouse) -> None:
    first, _ = closing.close(client, OCTOBER, "", LATER)
    insert(client, [call(5_000, event_time=BEGIN, cost_nano=7, cost_eur_nano=6, cost_rub_nano=5)], offset=2)
    november, _ = closing.close(client, NOVEMBER, "", LATER)
    assert sum(line["cost_nano"] for line in november.content["adjustments"]) == 7
    with pytest.raises(closing.CloseError, match="say why"):
        closing.reopen(client, OCTOBER, "", LATER, " ")
    closing.reopen(client, OCTOBER, "", LATER + timedelta(seconds=1), "invoice came late")
    second, fresh = closing.close(client, OCTOBER, "", LATER + timedelta(seconds=2))
    assert (fresh, second.number, second.hash != first.hash) == (True, 2, True)
    assert second.content["totals"]["cost_nano"] == first.content["totals"]["cost_nano"] + 7
    assert sum(line["cost_nano"] for line in closing.drift(client, second, "", LATER) or []) == -7, (
        "what November has booked"
    )


def test_what_is_not_known_is_not_frozen_as_zero(client: ClickHouse) -> None:
    with pytest.raises(closing.CloseError, match="no call of 2025-03 is stored"):
        closing.close(client, date(2025, 3, 1), "", LATER)
    with pytest.raises(closing.CloseError, match="no call of organisation 'ogr1' was ever stored"):
        closing.close(client, OCTOBER, "ogr1", LATER)
    with pytest.raises(closing.CloseError, match="not all of 2026-10 is stored: calls sent at 2026-10-31T23:59:59"):
        closing.close(client, OCTOBER, "", LATER, stored_until=datetime(2026, 10, 31, 23, 59, 59, tzinfo=UTC))
    assert client.query("SELECT count() AS n FROM statements")[0]["n"] == 0
    made, _ = closing.close(client, OCTOBER, "", LATER, stored_until=datetime(2026, 11, 1, tzinfo=UTC))
    assert made.content["stored_until"] == "2026-11-01T00:00:00+00:00"


def test_what_is_deleted_for_its_age_is_no_change(client: ClickHouse, ledger_settings: Settings) -> None:
    """Calls go after their days, statements stay: the month was right, and nothing is taken back from anybody."""
    first, _ = closing.close(client, OCTOBER, "", LATER)
    assert first.content["calls_kept_from"] is None, "younger than what is kept"
    kept = (datetime.now(UTC) + timedelta(days=1_000)).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    now = kept + timedelta(days=ledger_settings.retention_events_days)
    recent, following = (kept + timedelta(days=40)).replace(day=1), (kept + timedelta(days=75)).replace(day=1)
    insert(client, [call(7_000, event_time=recent)], offset=3)
    closing.close(client, recent.date(), "", now)
    client.command("ALTER TABLE usage_events DELETE WHERE toYear(event_time) = 2026 SETTINGS mutations_sync = 2")
    assert closing.drift(client, first, "", now) is None, "not known"
    changed = call(7_000, event_time=recent, cost_nano=1, revision=1)
    insert(client, [changed, call(8_000, event_time=following)], offset=4)
    last, _ = closing.close(client, following.date(), "", now)
    assert {line["month"] for line in last.content["adjustments"]} == {f"{recent:%Y-%m}"}
    assert last.content["calls_kept_from"] == kept.isoformat()


def test_an_amount_that_is_known_of_no_call_is_not_shown_as_zero(client: ClickHouse) -> None:
    def at(number: int, **more: Any) -> dict[str, Any]:
        return call(number, event_time=BEGIN + timedelta(hours=1), org_id="fx", **more)

    insert(client, [at(9_001, api_key_id="rate"), at(9_002, api_key_id="none", cost_rub_nano=None)], offset=3)
    insert(client, [at(9_003, api_key_id="unpriced", cost_nano=None, cost_eur_nano=None, cost_rub_nano=None)], offset=4)
    insert(client, [at(9_004, api_key_id="free", cost_nano=0, cost_eur_nano=0, cost_rub_nano=0)], offset=5)
    made, _ = closing.close(client, OCTOBER, "fx", LATER)
    shown = {row["api_key_id"]: closing.told(row) for row in made.content["rows"]}
    known = {key: [row[name] is not None for name in closing.MONEY] for key, row in shown.items()}
    assert known == {"rate": [True] * 3, "none": [True, True, False], "unpriced": [False] * 3, "free": [True] * 3}
    assert (
        closing.hash_of(json.dumps(made.content, sort_keys=True, ensure_ascii=False, separators=(",", ":")))
        == made.hash
    )


def test_an_organisation_without_calls_in_a_month_has_a_statement_of_nothing(client: ClickHouse) -> None:
    insert(client, [call(6_000, event_time=LATER, org_id="org9")], offset=3)
    made, _ = closing.close(client, OCTOBER, "org9", LATER)
    assert (made.content["rows"], made.content["totals"]["calls"]) == ([], 0)


def test_the_command_refuses_and_writes_files(client: ClickHouse, ledger_settings: Settings, tmp_path: Path) -> None:
    def run(*words: str) -> Any:
        return CliRunner().invoke(close, list(words), obj=ledger_settings)

    soon = datetime.now(UTC).strftime("%Y-%m")
    assert run(soon).exit_code == 2
    files = ("--csv", str(tmp_path / "s.csv"), "--html", str(tmp_path / "s.html"))
    done = run("2026-10", *files, "--json")
    assert done.exit_code == 0, done.output
    document = json.loads(done.stdout)
    assert document["totals"]["cost_nano"] == plain(of(OCTOBER))["cost_nano"]
    assert "'=k0" in (tmp_path / "s.csv").read_text(encoding="utf-8")
    assert document["hash"] in (tmp_path / "s.html").read_text(encoding="utf-8")
    forged = {**document, "totals": {}}
    row_ = ["2026-10", "", 1, "closed", "", json.dumps(forged), document["hash"], "2030-01-01 00:00:00.000000"]
    columns = ("month", "org_id", "number", "state", "reason", "content", "hash", "written_at")
    client.insert_rows("statements", columns, [row_])
    refused = run("2026-10")
    assert (refused.exit_code, "was changed after it was frozen" in refused.output) == (2, True)
