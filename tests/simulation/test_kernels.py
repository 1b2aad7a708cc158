"""The vectorised fold equals the row-by-row one, on logs that the line wrote under faults, however they are cut."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.effort import examples
from tests.simulation import fold, row_state
from tests.simulation.broker import Log
from tests.simulation.columns import ColumnFolding, rules_of
from tests.simulation.kernels import SETTINGS, SOURCES
from tests.simulation.line import Line
from tests.simulation.oracle import KINDS
from tests.simulation.run import build, drive
from tollmeter.schemas import topics
from tollmeter.streams.rules.windows.state import State
from tollmeter.streams.rules.windows.totals import MEASURES

CALLS, COST = MEASURES.index("calls"), MEASURES.index("cost_nano")


def cells_of(state: State) -> dict[row_state.Key, tuple[int, int]]:
    """The cells in memory that have something in them, of the scopes that the row-by-row fold knows."""
    return {
        (level, bucket, *state.scopes.names[scope]): (int(values[CALLS]), int(values[COST]))
        for level in row_state.LEVELS
        for bucket, cells in state.levels[level].items()
        for scope, values in zip(cells.scopes.tolist(), cells.values, strict=True)
        if state.scopes.names[scope][1] in KINDS and (values[CALLS] or values[COST])
    }


def edges(alerts: list[Any]) -> dict[tuple[Any, ...], Any]:
    """What budget alerts say, whatever their ids, and when each was first found."""
    found: dict[tuple[Any, ...], Any] = {}
    for alert in alerts:
        if alert.kind == "budget":
            facts = alert.facts
            edge = (
                facts["policy_id"],
                alert.name,
                facts["limit_nano"],
                facts["window"],
                alert.period,
                facts["threshold_pct"],
            )
            found.setdefault(edge, alert.received_at)
    return found


def compare(line: Line, log: Log, cut: int) -> int:
    """Fold a log both ways, `cut` records at a time; return the number of alerts."""
    folding, rules = ColumnFolding(SETTINGS, line.broker, None), rules_of(SETTINGS, SOURCES)
    columns, rows = State(log.tp.partition, rules), row_state.RowState(log.tp.partition, SOURCES, SETTINGS.horizon_s)
    by_columns: list[Any] = []
    by_rows: list[Any] = []
    for begin in range(0, len(log.records), cut):
        records = log.records[begin : begin + cut]
        by_columns += folding.fold(columns, records, None)
        by_rows += fold.fold(rows, records, None)
        if begin // cut % 16 and begin + cut < len(log.records):
            continue
        expected = {
            key: (cell.calls, cell.cost_nano) for key, cell in rows.cells.items() if cell.calls or cell.cost_nano
        }
        found = {key: totals for key, totals in cells_of(columns).items() if key in rows.cells}
        assert found == expected
        assert (columns.high, columns.clocks, columns.applied) == (rows.high, rows.clocks, rows.applied)
        assert (set(columns.deferred), columns.repaired) == (set(rows.deferred), rows.repaired)
        assert columns.counters["accepted"] == rows.accepted
    assert edges(by_columns) == edges(by_rows)
    return len(by_rows)


@pytest.mark.parametrize("cut", [1, 7])
def test_both_folds_agree_on_the_logs_of_the_line(cut: int) -> None:
    alerts = 0
    for seed in range(4):
        line, *_ = drive(build(seed, kind=""))
        for log in line.broker.of(topics.PRICED):
            alerts += compare(line, log, cut)
    assert alerts > 10


@given(st.integers(1_000, 10**6), st.integers(1, 9))
@settings(max_examples=examples(5), deadline=None)
def test_both_folds_agree_on_any_log(seed: int, cut: int) -> None:
    line, *_ = drive(build(seed, kind=""))
    for log in line.broker.of(topics.PRICED):
        compare(line, log, cut)
