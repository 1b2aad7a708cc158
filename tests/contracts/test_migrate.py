"""Migrations on a real engine: applied once, resumed after a crash, refused when rewritten; retention may change."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from tollmeter.settings import Settings
from tollmeter.sinks.clickhouse import migrate
from tollmeter.sinks.clickhouse.client import ClickHouse, connect

TABLES = {
    "alerts",
    "fx_rates",
    "ledger_coverage",
    "ledger_gaps",
    "ledger_voids",
    "members",
    "policies",
    "price_rules",
    "rollup_progress",
    "schema_migrations",
    "token_usage",
    "usage",
    "alert_list",
    "usage_daily",
    "usage_events",
    "usage_hourly",
    "usage_minutely",
    "usage_live",
    "budget_use",
    "line_batches",
    "line_progress",
    "line_gaps",
    "usage_minutes",
    "usage_windows",
    "watch_policies",
    "watch_profiles",
    "watch_progress",
}


def test_files_are_numbered_without_a_gap_and_hold_one_statement_each() -> None:
    steps = migrate.migrations()
    assert [step.name[:5] for step in steps] == [f"{number:04d}_" for number in range(1, len(steps) + 1)]
    for step in steps:
        statement = re.sub(r"--.*", "", step.template).strip()
        assert ";" not in statement
        assert statement.startswith(("CREATE ", "ALTER TABLE "))
        assert any(
            again in statement
            for again in ("IF NOT EXISTS", "OR REPLACE VIEW", "MODIFY SETTING", "COMMENT COLUMN IF EXISTS")
        )


def test_retention_is_filled_in_and_does_not_change_the_checksum() -> None:
    (step,) = (step for step in migrate.migrations() if step.table == "usage_events")
    assert step.retention == "retention_events_days"
    text = step.statement(Settings(retention_events_days=7))
    assert "INTERVAL 7 DAY DELETE" in text
    assert "{" not in text
    assert step.checksum == migrate.Migration(step.name, step.template).checksum
    assert step.checksum != migrate.Migration(step.name, step.template + " ").checksum


@pytest.fixture(name="ledger")
def connected(ledger_settings: Settings) -> Iterator[ClickHouse]:
    client = connect(ledger_settings)
    yield client
    client.close()


@pytest.fixture(scope="module", name="fresh")
def fresh_settings(ledger_settings: Settings) -> Iterator[Settings]:
    settings = ledger_settings.model_copy(
        update={"clickhouse_database": f"{ledger_settings.clickhouse_database}_fresh"}
    )
    yield settings
    client = connect(settings)
    client.command(f"DROP DATABASE {settings.clickhouse_database} SYNC")
    client.close()


@pytest.mark.stack
def test_a_dry_run_names_everything_and_makes_nothing(fresh: Settings, ledger: ClickHouse) -> None:
    names = [step.name for step in migrate.migrations()]
    assert migrate.pending(fresh) == names
    rows = ledger.query("SELECT name FROM system.databases WHERE name = {n:String}", {"n": fresh.clickhouse_database})
    assert rows == []
    assert migrate.apply(fresh) == names
    assert migrate.apply(fresh) == migrate.pending(fresh) == []


@pytest.mark.stack
def test_every_table_is_there(ledger: ClickHouse) -> None:
    names = {line["name"] for line in ledger.query("SELECT name FROM system.tables WHERE database = currentDatabase()")}
    assert names >= TABLES


@pytest.mark.stack
def test_a_set_up_that_died_in_the_middle_goes_on(ledger_settings: Settings, ledger: ClickHouse) -> None:
    ledger.command("DROP TABLE ledger_gaps")
    ledger.command("ALTER TABLE schema_migrations DELETE WHERE name = '0004_ledger_gaps' SETTINGS mutations_sync = 1")
    ledger.insert_rows("schema_migrations", ("name", "checksum", "status"), [("0004_ledger_gaps", "x", "in_progress")])
    assert migrate.pending(ledger_settings) == ["0004_ledger_gaps"]
    assert migrate.apply(ledger_settings) == ["0004_ledger_gaps"]
    assert ledger.query("SELECT count() AS n FROM ledger_gaps") == [{"n": 0}]
    assert migrate.pending(ledger_settings) == []


@pytest.mark.stack
def test_one_that_died_before_its_last_line_does_all_again(ledger_settings: Settings, ledger: ClickHouse) -> None:
    """Every statement may run twice: nothing is another one then, and no row is gone."""
    shape = (
        "SELECT name, create_table_query FROM system.tables WHERE database = currentDatabase() ORDER BY name",
        "SELECT name, checksum, status FROM schema_migrations FINAL ORDER BY name",
        "SELECT org_id FROM usage_events",
    )
    ledger.insert_rows("usage_events", ("org_id", "event_time"), [("kept", datetime.now(UTC))])
    made, steps = [ledger.query(one) for one in shape], migrate.migrations()
    begun = [(step.name, step.checksum, "in_progress") for step in steps]
    ledger.insert_rows("schema_migrations", ("name", "checksum", "status"), begun)
    assert migrate.apply(ledger_settings) == [step.name for step in steps]
    assert [ledger.query(one) for one in shape] == made
    assert migrate.pending(ledger_settings) == []
    assert made[2] == [{"org_id": "kept"}]


@pytest.mark.stack
def test_another_retention_changes_the_tables_in_place(ledger_settings: Settings, ledger: ClickHouse) -> None:
    shorter = ledger_settings.model_copy(update={"retention_events_days": 30, "retention_windows_days": 9})
    said = ["usage_events: keep 30 days", "usage_windows: keep 9 days"]
    assert migrate.pending(shorter) == said
    assert migrate.apply(shorter) == said
    assert migrate.pending(shorter) == []
    (table,) = ledger.query(
        "SELECT engine_full FROM system.tables WHERE database = currentDatabase() AND name = 'usage_events'"
    )
    assert "TTL greatest(event_time, received_at) + toIntervalDay(30)" in table["engine_full"]
    migrate.apply(ledger_settings)
    assert migrate.pending(ledger_settings) == []


@pytest.mark.stack
def test_a_rewritten_file_and_an_unknown_one_are_refused(ledger_settings: Settings, ledger: ClickHouse) -> None:
    columns = ("name", "checksum", "status")
    (step,) = (step for step in migrate.migrations() if step.name == "0005_usage_minutes")
    ledger.insert_rows("schema_migrations", columns, [(step.name, "of another text", "completed")])
    with pytest.raises(migrate.SchemaError, match="0005_usage_minutes was applied from another text"):
        migrate.apply(ledger_settings)
    ledger.insert_rows("schema_migrations", columns, [(step.name, step.checksum, "completed")])
    ledger.insert_rows("schema_migrations", columns, [("9999_from_the_future", "x", "completed")])
    with pytest.raises(migrate.SchemaError, match="run a newer tollmeter"):
        migrate.pending(ledger_settings)
    ledger.command("ALTER TABLE schema_migrations DELETE WHERE name LIKE '9999%' SETTINGS mutations_sync = 1")
    assert migrate.apply(ledger_settings) == []


@pytest.mark.stack
@pytest.mark.parametrize("gone", [["token_usage"], ["usage"], ["usage_minutes"], ["usage_events", "usage_hourly"]])
def test_what_was_dropped_is_made_again_as_it_was(
    ledger_settings: Settings, ledger: ClickHouse, gone: list[str]
) -> None:
    shape = "SELECT name, create_table_query FROM system.tables WHERE database = currentDatabase() ORDER BY name"
    before = ledger.query(shape)
    for name in gone:
        kind = "VIEW" if name in ("token_usage", "usage", "usage_hourly") else "TABLE"
        ledger.command(f"DROP {kind} {name} SYNC" if kind == "TABLE" else f"DROP VIEW {name}")
    pending = migrate.pending(ledger_settings)
    assert {step.about for step in migrate.migrations() if step.name in pending} == set(gone)
    mend = migrate.Mender()
    assert sorted(mend(ledger_settings)) == sorted(gone)
    assert ledger.query(shape) == before
    assert mend(ledger_settings) == migrate.pending(ledger_settings) == []


@pytest.mark.stack
def test_a_running_line_keeps_rows_as_long_as_its_own_settings_say(
    ledger_settings: Settings, ledger: ClickHouse
) -> None:
    mend = migrate.Mender()
    assert mend(ledger_settings) == []
    shorter = ledger_settings.model_copy(update={"retention_minutes_days": 7})
    assert migrate.apply(shorter) == ["usage_minutes: keep 7 days"]
    assert mend(ledger_settings) == []
    assert migrate.pending(ledger_settings) == []
