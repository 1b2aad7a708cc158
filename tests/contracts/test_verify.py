"""Verify's questions to the real engine: coverage, sealed windows, rollup minutes, equal and with a fault each."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tollmeter.admin.verify import ledger, rollups, windows
from tollmeter.admin.verify.sources import SourceMap
from tollmeter.admin.verify.windows import Progress, WindowCheck
from tollmeter.schemas.policy import SCOPE_COLUMNS
from tollmeter.settings import Settings
from tollmeter.sinks.clickhouse import rollup
from tollmeter.sinks.clickhouse.client import ClickHouse, Unavailable, connect
from tollmeter.sinks.clickhouse.queries import load
from tollmeter.streams.rules.windows.backfill import Backfill
from tollmeter.streams.rules.windows.totals import LEVELS, MEASURES, bucket_at
from tollmeter.streams.watch.ledger_totals import extra_cells

pytestmark = pytest.mark.stack

MINUTE = datetime(2026, 11, 20, 10, 5, tzinfo=UTC)
HORIZON_S = 3_600


@pytest.fixture
def client(ledger_settings: Settings) -> Iterator[ClickHouse]:
    client = connect(ledger_settings)
    for table in (
        "usage_events",
        "ledger_coverage",
        "usage_windows",
        "watch_progress",
        "usage_minutes",
        "ledger_voids",
    ):
        client.command(f"TRUNCATE TABLE {table}")
    yield client
    client.close()


def store(client: ClickHouse, *rows: tuple[datetime, datetime, int, int | None]) -> None:
    """Insert (event_time, received_at, input_tokens, cost_nano) as ledger rows of partition 0."""
    columns = (
        "event_id",
        "event_time",
        "received_at",
        "org_id",
        "src_partition",
        "src_offset",
        "input_tokens",
        "cost_nano",
        "billing_scope",
        "priced_partition",
        "priced_offset",
    )
    client.insert_rows(
        "usage_events",
        columns,
        [
            (f"00000000-0000-4000-8000-{n:012d}", at, received, "acme", 0, n, tokens, cost, "ORG", 0, n)
            for n, (at, received, tokens, cost) in enumerate(rows)
        ],
    )


def cover(client: ClickHouse, *spans: tuple[int, int, int]) -> None:
    columns = (
        "priced_partition",
        "priced_offset",
        "source_partition",
        "first_offset",
        "last_offset",
        "records",
        "rows",
    )
    rows = [(0, n, source, first, last, last - first + 1, 1) for n, (source, first, last) in enumerate(spans)]
    client.insert_rows("ledger_coverage", columns, rows)


@pytest.mark.parametrize(
    ("spans", "gaps"),
    [
        ([(0, 0, 9), (1, 0, 4)], {}),
        ([(0, 0, 3), (0, 2, 9), (1, 0, 4)], {}),
        ([(0, 0, 3), (0, 6, 9), (1, 0, 4)], {"source partition 0": (2, "offsets 4-5")}),
        ([(0, 3, 9)], {"source partition 0": (3, "offsets 0-2"), "source partition 1": (5, "offsets 0-4")}),
        ([(0, 0, 99), (1, 0, 1)], {"source partition 1": (3, "offsets 2-4")}),
    ],
    ids=["whole", "overlapping", "hole", "begin and absent", "end"],
)
def test_coverage_gaps(client: ClickHouse, spans: list[tuple[int, int, int]], gaps: dict[str, tuple[int, str]]) -> None:
    cover(client, *spans)
    found = ledger.coverage_gaps(client, SourceMap({}, {0: 10, 1: 5}))
    assert {d.where: (d.amount, d.detail) for d in found} == gaps


def test_log_start_is_where_every_cut_target_is_whole(client: ClickHouse) -> None:
    cover(client, (0, 0, 3), (0, 4, 9), (1, 7, 8))
    assert ledger.log_start(client, {0: 0}) == {}
    assert ledger.log_start(client, {0: 1}) == {0: 4, 1: 7}


def test_marks_of_transactions_are_no_gap(client: ClickHouse) -> None:
    cover(client, (0, 0, 3), (0, 6, 9))
    sources = SourceMap({}, {0: 10})
    sources.no_record(0, 4)
    assert [d.detail for d in ledger.coverage_gaps(client, sources)] == ["offsets 5"]
    sources.no_record(0, 5)
    assert ledger.coverage_gaps(client, sources) == []


APPLIED = 9
SEALED = int(MINUTE.timestamp()) + 31 * 86_400


def window(client: ClickHouse, calls: int, tokens: int, cost: int, name: str = "", stamp: int = APPLIED) -> None:
    """The totals of the organisation, or of one IP, in one minute, hour, day and month."""
    columns = (
        "level",
        "bucket",
        "org_id",
        "scope",
        "name",
        "priced_partition",
        "stamp",
        "calls",
        "input_tokens",
        "cost_nano",
    )
    starts = {
        "minute": MINUTE,
        "hour": MINUTE.replace(minute=0),
        "day": MINUTE.replace(hour=0, minute=0),
        "month": MINUTE.replace(day=1, hour=0, minute=0),
    }
    scope = "client_ip" if name else "org"
    client.insert_rows(
        "usage_windows",
        columns,
        [(level, start, "acme", scope, name, 0, stamp, calls, tokens, cost) for level, start in starts.items()],
    )


def check(
    client: ClickHouse, deferred: frozenset[tuple[str, int]] = frozenset(), applied: int = APPLIED
) -> WindowCheck:
    at = Progress(0, applied, applied, SEALED, deferred)
    return windows.check(client, at, HORIZON_S, int(MINUTE.timestamp()) - 40 * 86_400)


def test_query_speaks_of_the_same_levels_scopes_and_measures_as_the_fold() -> None:
    text = load("verify_windows")
    assert f"[{', '.join(MEASURES)}]" in " ".join(text.split())
    assert all(f"('{level}', to" in text for level in LEVELS)
    assert all(f"('{kind}', " in text for kind in SCOPE_COLUMNS)


def minutes_only(found: WindowCheck) -> dict[str, int]:
    return {d.name: d.amount for d in found.differences() if d.where.startswith("minute")}


TWO = [(MINUTE, MINUTE, 10, 100), (MINUTE + timedelta(seconds=59), MINUTE + timedelta(minutes=5), 20, 200)]
LATE = (MINUTE + timedelta(seconds=30), MINUTE + timedelta(hours=3), 5, 50)
BOTH_SHORT = {"window_calls": 1, "window_input_tokens": 5, "window_cost_nano": 50}


@pytest.mark.parametrize(
    ("rows", "total", "found"),
    [
        (TWO, (2, 30, 300), {}),
        ([*TWO, LATE], (2, 30, 300), BOTH_SHORT),
        ([*TWO, LATE], (3, 35, 350), {}),
        (TWO, (2, 30, 299), {"window_cost_nano": 1}),
        (TWO, (1, 10, 100), {"window_calls": 1, "window_input_tokens": 20, "window_cost_nano": 200}),
        ([], (1, 0, 0), {"window_calls": 1}),
        (TWO, (3, 30, 300), {"window_calls": 1}),
    ],
    ids=["equal", "late row not repaired", "late row repaired", "cost", "a call short", "no ledger row", "surplus"],
)
def test_totals(client: ClickHouse, rows: list, total: tuple[int, int, int], found: dict[str, int]) -> None:
    store(client, *rows)
    window(client, *total)
    result = check(client)
    assert (result.compared, minutes_only(result)) == (4, found)
    assert len(result.differences()) == 4 * len(found)  # each level says so
    assert {cell.sealed for cells in result.wrong.values() for cell in cells} <= {True, False}


def test_total_without_a_row_in_the_windows_is_found(client: ClickHouse) -> None:
    store(client, *TWO)
    assert minutes_only(check(client)) == {"window_calls": 2, "window_input_tokens": 30, "window_cost_nano": 300}


def test_late_rows_that_wait_for_their_repair_are_no_difference(client: ClickHouse) -> None:
    store(client, *TWO, LATE)
    window(client, 2, 30, 300)
    found = check(client, frozenset({("acme", int(MINUTE.timestamp()) // 3_600)}))
    assert (found.compared, found.waiting, found.differences()) == (0, 4, [])


def test_rows_behind_the_checkpoint_count_only_when_a_repair_may_have_brought_them(client: ClickHouse) -> None:
    store(client, *TWO, LATE, TWO[0])  # offsets 0 to 3
    for total, differs in (((2, 30, 300), False), ((3, 35, 350), False), ((3, 40, 400), True)):
        client.command("TRUNCATE TABLE usage_windows")
        window(client, *total, stamp=1)
        assert bool(check(client, applied=1).differences()) is differs


def test_in_a_log_made_anew_stamps_go_on_and_older_rows_are_those_received_before(client: ClickHouse) -> None:
    store(client, *TWO)
    window(client, 2, 30, 300, stamp=(1 << 40) - 1)
    at = Progress(0, 0, 1 << 40, SEALED, frozenset())
    found = windows.check(client, at, HORIZON_S, int(MINUTE.timestamp()) - 40 * 86_400)
    assert (found.compared, found.differences()) == (4, [])


def test_totals_of_a_newer_checkpoint_are_left_out(client: ClickHouse) -> None:
    store(client, *TWO)
    window(client, 1, 1, 1, stamp=APPLIED + 1)
    found = check(client)
    assert (found.compared, found.differences()) == (0, [])


def test_folded_names_are_compared_in_sum(client: ClickHouse) -> None:
    store(client, *TWO)
    client.command(
        "ALTER TABLE usage_events UPDATE client_ip = concat('10.0.0.', toString(src_offset)) WHERE 1 "
        "SETTINGS mutations_sync = 2"
    )
    window(client, 2, 30, 300)
    window(client, 1, 10, 100, name="10.0.0.0")
    window(client, 1, 20, 200, name="__other__")
    assert check(client).differences() == []
    window(client, 1, 20, 201, name="__other__", stamp=APPLIED)
    client.command("OPTIMIZE TABLE usage_windows FINAL")
    found = check(client).differences()
    assert {(d.name, d.amount) for d in found} == {("window_cost_nano", 1)}
    assert all("client_ip *" in d.where for d in found)


def tamper(client: ClickHouse, change: str) -> None:
    client.command(
        f"INSERT INTO usage_minutes SELECT * REPLACE ({change}, computed_at + INTERVAL 1 MICROSECOND AS computed_at) "
        "FROM usage_minutes FINAL"
    )


BEFORE = datetime(2026, 1, 1, tzinfo=UTC)


def test_rollup_is_compared_group_by_group_and_computed_again(client: ClickHouse, ledger_settings: Settings) -> None:
    store(client, *TWO)
    quick = ledger_settings.model_copy(update={"rollup_quiet_s": 0.0})
    found = rollups.check(client, 0.0, BEFORE, BEFORE)
    assert (found.compared, found.differences) == (0, [])  # not computed yet
    rollup.step(client, quick)
    assert (
        rollups.check(client, 0.0, BEFORE, BEFORE).compared,
        rollups.check(client, 60.0, BEFORE, BEFORE).compared,
    ) == (1, 0)
    inside = MINUTE + timedelta(seconds=30)  # a row of the minute lies before it
    assert (
        rollups.check(client, 0.0, BEFORE, inside).compared,
        rollups.check(client, 0.0, BEFORE, inside).differences,
    ) == (1, [])
    tamper(client, "cost_nano + 5 AS cost_nano")
    found = rollups.check(client, 0.0, BEFORE, BEFORE)
    assert {d.name: d.amount for d in found.differences} == {"rollup_cost_nano": 5}
    assert "2026-11-20T10:05Z, org acme" in found.differences[0].where
    rollups.recompute(client, found.minutes)
    assert rollups.check(client, 0.0, BEFORE, BEFORE).differences == []


def test_rollup_group_that_moved_to_another_key_is_seen_though_the_sums_agree(
    client: ClickHouse, ledger_settings: Settings
) -> None:
    store(client, *TWO)
    rollup.step(client, ledger_settings.model_copy(update={"rollup_quiet_s": 0.0}))
    tamper(client, "'stray' AS api_key_id")
    zeros = ", ".join(f"0 AS {name}" for name in ("calls", "cost_nano", "input_tokens", "unpriced"))
    client.command(
        f"INSERT INTO usage_minutes SELECT * REPLACE ({zeros}, computed_at + INTERVAL 1 MICROSECOND AS computed_at) "
        "FROM usage_minutes FINAL WHERE api_key_id = ''"
    )
    found = rollups.check(client, 0.0, BEFORE, BEFORE)
    assert {d.name for d in found.differences} == {"rollup_calls", "rollup_input_tokens", "rollup_cost_nano"}
    assert len({d.where for d in found.differences}) == 2


def test_rollup_of_a_minute_whose_rows_are_gone_differs_while_retention_cannot_explain_it(
    client: ClickHouse, ledger_settings: Settings
) -> None:
    store(client, *TWO)
    rollup.step(client, ledger_settings.model_copy(update={"rollup_quiet_s": 0.0}))
    client.command("TRUNCATE TABLE usage_events")
    assert {d.name for d in rollups.check(client, 0.0, BEFORE, BEFORE).differences} >= {"rollup_calls"}
    after = MINUTE + timedelta(days=1)
    assert rollups.check(client, 0.0, after, BEFORE).differences == []


def test_pages_cover_all_time_and_hold_bounded_rows(client: ClickHouse, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "PAGE_ROWS", 2)
    store(client, *((MINUTE + timedelta(minutes=n // 2), MINUTE, 1, n) for n in range(9)))
    cut = list(ledger.pages(client))
    assert len(cut) == 5
    frames = [ledger.rows_of(client, page, BEFORE) for page in cut]
    assert [frame.height for frame in frames] == [2, 2, 2, 2, 1]
    assert [ledger.rows_of(client, page, MINUTE + timedelta(seconds=1)).height for page in cut] == [0] * 5


def test_voided_rows_leave_the_ledger_and_stay_known(client: ClickHouse) -> None:
    store(client, *TWO, LATE)
    (page,) = ledger.pages(client)
    rows = ledger.rows_of(client, page, BEFORE).sort("src_offset")
    columns = ("event_time", "org_id", "event_id", "kept_time", "src_partition", "src_offset")
    tombstone = [*rows.select("event_time", "org_id", "event_id").row(1), rows["event_time"][0], 0, 1]
    client.insert_rows("ledger_voids", (*columns, "reason"), [(*tombstone, "same id at another time")])
    ledger.delete(client, rows[1:2])
    assert sorted(ledger.rows_of(client, page, BEFORE)["src_offset"]) == [0, 2]
    assert ledger.voids(client)["event_id"].to_list() == [rows["event_id"][1]]


def correct(client: ClickHouse, number: int, offset: int, **changed: Any) -> None:
    """Store the next revision of a row."""
    changes = "".join(f", {value!r} AS {name}" for name, value in changed.items())
    client.command(
        "INSERT INTO usage_events (* EXCEPT (version)) SELECT * EXCEPT (version) "
        f"REPLACE (revision + 1 AS revision, {offset} AS priced_offset{changes}) "
        f"FROM usage_events FINAL WHERE src_offset = {number}"
    )


def test_rows_corrected_behind_the_checkpoint_wait_for_the_next_one(client: ClickHouse) -> None:
    store(client, *TWO)  # offsets 0 and 1
    window(client, 2, 30, 300, stamp=4)
    correct(client, 1, 5, cost_nano=250)
    found = check(client, applied=4)
    assert (found.compared, found.waiting, found.ahead, found.differences()) == (0, 4, 4, [])
    found = check(client, applied=5)
    assert (found.compared, found.ahead, minutes_only(found)) == (4, 0, {"window_cost_nano": 50})
    client.command("TRUNCATE TABLE usage_windows")
    window(client, 2, 30, 350)
    assert check(client, applied=5).differences() == []


def settle(client: ClickHouse, applied: int) -> Any:
    day_s = int(MINUTE.timestamp()) // 86_400 * 86_400
    scopes = frozenset({("org", "")})
    wanted = Backfill("acme", "day", 0, applied, day_s, day_s + 86_400, bucket_at("day", day_s), scopes, live={})
    return extra_cells(client, wanted).select("calls", "cost_nano").rows()


def test_extra_totals_wait_while_the_ledger_is_ahead_by_corrections(client: ClickHouse) -> None:
    store(client, *TWO)
    assert settle(client, 4) == [(2, 300)]
    correct(client, 1, 5, cost_nano=250)
    with pytest.raises(Unavailable, match="1 rows of acme were corrected behind offset 4"):
        settle(client, 4)
    assert settle(client, 5) == [(2, 350)]
    correct(client, 1, 6, status="VOID", cost_nano=0, input_tokens=0)
    assert settle(client, 6) == [(1, 100)]
