"""Verify's questions to the real engine: coverage, sealed windows, rollup minutes, equal and with a fault each."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from tollmeter.settings import Settings
from tollmeter.sinks import rollup
from tollmeter.sinks.clickhouse import ClickHouse, connect
from tollmeter.verify import ledger

pytestmark = pytest.mark.stack

MINUTE = datetime(2026, 11, 20, 10, 5, tzinfo=UTC)
HORIZON_S = 3_600


@pytest.fixture
def client(ledger_settings: Settings) -> Iterator[ClickHouse]:
    client = connect(ledger_settings)
    for table in ("usage_events", "ledger_coverage", "usage_windows", "watch_progress", "usage_minutes"):
        client.command(f"TRUNCATE TABLE {table}")
    yield client
    client.close()


def store(client: ClickHouse, *rows: tuple[datetime, datetime, int, int | None]) -> None:
    """Insert (event_time, received_at, input_tokens, cost_nano) as ledger rows of partition 0."""
    columns = (
        "event_id", "event_time", "received_at", "org_id", "src_partition", "src_offset", "input_tokens", "cost_nano",
        "billing_scope", "priced_partition", "priced_offset",
    )  # fmt: skip
    client.insert_rows(
        "usage_events", columns,
        [
            (f"00000000-0000-4000-8000-{n:012d}", at, received, "acme", 0, n, tokens, cost, "ORG", 0, n)
            for n, (at, received, tokens, cost) in enumerate(rows)
        ],
    )  # fmt: skip


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
    found = ledger.coverage_gaps(client, {}, {0: 10, 1: 5})
    assert {d.where: (d.amount, d.detail) for d in found} == gaps


def test_log_start_is_where_every_cut_target_is_whole(client: ClickHouse) -> None:
    cover(client, (0, 0, 3), (0, 4, 9), (1, 7, 8))
    assert ledger.log_start(client, {0: 0}) == {}
    assert ledger.log_start(client, {0: 1}) == {0: 4, 1: 7}


def checkpoint(client: ClickHouse, calls: int, tokens: int, cost: int, sealed: bool = True) -> None:
    """One window minute of the organisation, and a clock that has sealed it or not."""
    columns = ("level", "bucket", "org_id", "scope", "name", "priced_partition", "stamp",
               "calls", "input_tokens", "cost_nano")  # fmt: skip
    client.insert_rows("usage_windows", columns, [("minute", MINUTE, "acme", "org", "", 0, 9, calls, tokens, cost)])
    clock = MINUTE + timedelta(seconds=60 + HORIZON_S + (60 if sealed else -60))
    state = {"clocks": {"0": int(clock.timestamp() * 1000)}, "applied": 9}
    columns = ("priced_partition", "applied", "stamp", "state")
    client.insert_rows("watch_progress", columns, [(0, 9, 9, json.dumps(state))])


TWO = [(MINUTE, MINUTE, 10, 100), (MINUTE + timedelta(seconds=59), MINUTE + timedelta(minutes=5), 20, 200)]
LATE = (MINUTE + timedelta(seconds=30), MINUTE + timedelta(hours=3), 5, 50)


@pytest.mark.parametrize(
    ("rows", "window", "found"),
    [
        (TWO, (2, 30, 300), {}),
        ([*TWO, LATE], (2, 30, 300), {}),
        ([*TWO, LATE], (3, 35, 350), {}),
        (TWO, (2, 30, 299), {"window_cost_nano": 1}),
        (TWO, (1, 10, 100), {"window_calls": 1, "window_input_tokens": 20, "window_cost_nano": 200}),
        ([], (1, 0, 0), {"window_calls": 1}),
    ],
    ids=["equal", "late row not repaired", "late row repaired", "cost", "a call short", "no ledger row"],
)
def test_sealed_windows(client: ClickHouse, rows: list, window: tuple[int, int, int], found: dict[str, int]) -> None:
    store(client, *rows)
    checkpoint(client, *window)
    compared, differences = ledger.windows(client, HORIZON_S)
    assert compared == 1
    assert {d.name: d.amount for d in differences} == found


def test_open_windows_are_left_out(client: ClickHouse) -> None:
    store(client, *TWO)
    checkpoint(client, 1, 1, 1, sealed=False)
    assert ledger.windows(client, HORIZON_S) == (0, [])


def test_rollup(client: ClickHouse, ledger_settings: Settings) -> None:
    store(client, *TWO)
    quick = ledger_settings.model_copy(update={"rollup_quiet_s": 0.0})
    before = datetime(2026, 1, 1, tzinfo=UTC)
    assert ledger.rollup(client, 0.0, before) == (0, [])
    rollup.step(client, quick)
    compared, found = ledger.rollup(client, 0.0, before)
    assert (compared, found) == (4, [])
    assert ledger.rollup(client, 60.0, before) == (0, [])
    client.command(
        "INSERT INTO usage_minutes SELECT * REPLACE (cost_nano + 5 AS cost_nano, computed_at + 1 AS computed_at) "
        "FROM usage_minutes FINAL"
    )
    _, found = ledger.rollup(client, 0.0, before)
    assert {d.name: d.amount for d in found} == {"rollup_cost_nano": 5}
