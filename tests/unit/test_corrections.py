"""A correction moves its windows by the difference, once, also behind a restart, and crosses budgets as late spend."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import polars as pl
import pytest

from tests import watch_rows
from tests.laws.test_fold import Record, cells_of, correction_record, rows_record
from tollmeter.schemas.control import PolicySet
from tollmeter.schemas.envelope import control_record, tick_record
from tollmeter.schemas.policy import Policy
from tollmeter.schemas.priced import VOID
from tollmeter.schemas.progress import Progress
from tollmeter.streams.rules.windows.snapshot import CELL_SCHEMA, restore, snapshot
from tollmeter.streams.rules.windows.state import State
from tollmeter.streams.rules.windows.totals import CALLS, COST
from tollmeter.streams.watch.records import fold_records, remember

START = watch_rows.START
EMPTY = {"status": VOID, "cost_nano": 0, "input_tokens": 0, "output_tokens": 0}


def row(number: int = 0, **changed: Any) -> dict[str, Any]:
    return watch_rows.row(number, START, **{"cost_nano": 1_000, **changed})


def revised(old: dict[str, Any], **changed: Any) -> dict[str, Any]:
    return {**old, "revision": old.get("revision", 0) + 1, **changed}


def total(state: State, kind: str, name: str, org: str = "acme") -> tuple[int, int]:
    """Return calls and cost of the month."""
    found = [values for key, values in cells_of(state).items() if key[0] == "month" and key[1:4] == (org, kind, name)]
    return (found[0][CALLS], found[0][COST]) if found else (0, 0)


def tick(offset: int, at_s: float) -> Record:
    value, headers = tick_record({0: round(at_s * 1000), 1: round(at_s * 1000)})
    return Record(offset, round(at_s * 1000), headers, value)


@pytest.mark.parametrize(
    ("now", "cost_u", "cost_v"),
    [
        ({"cost_nano": 1_500}, (1, 1_500), (0, 0)),
        ({"cost_nano": None, "price_status": "UNKNOWN_MODEL"}, (1, 0), (0, 0)),
        ({"user_id": "v"}, (0, 0), (1, 1_000)),
        (EMPTY, (0, 0), (0, 0)),
    ],
)
def test_windows_move_by_the_difference(now: dict[str, Any], cost_u: tuple[int, int], cost_v: tuple[int, int]) -> None:
    state: State = watch_rows.new_state()
    old = row()
    fold_records(state, [rows_record(0, [old]), correction_record(1, [old], [revised(old, **now)], START)])
    assert (total(state, "user", "u"), total(state, "user", "v")) == (cost_u, cost_v)


def test_the_first_correction_to_a_revision_counts_and_the_next_revision_follows() -> None:
    state: State = watch_rows.new_state()
    old = row()
    first, second = revised(old, cost_nano=7), revised(old, cost_nano=9)
    overtaken = correction_record(2, [old], [second], START)
    fold_records(state, [rows_record(0, [old]), correction_record(1, [old], [first], START), overtaken])
    assert total(state, "org", "") == (1, 7)
    fold_records(state, [correction_record(3, [first], [revised(first, cost_nano=11)], START)])
    assert total(state, "org", "") == (1, 11)


def test_a_restarted_worker_knows_which_revisions_it_has_folded() -> None:
    old = row()
    correction = correction_record(1, [old], [revised(old, cost_nano=7)], START)
    log = [rows_record(0, [old]), correction, tick(2, START + 5)]
    before: State = watch_rows.new_state()
    fold_records(before, log)
    taken = snapshot(before)
    state: State = watch_rows.new_state()
    restore(state, Progress.read(taken.progress.text()), pl.DataFrame(taken.cells.to_dicts(), schema=CELL_SCHEMA), [])

    async def read_back(_partition: int, _since_ms: int, end: int) -> AsyncIterator[list[Record]]:
        yield log[:end]

    asyncio.run(remember(read_back, state))
    fold_records(state, [correction._replace(offset=3)])
    assert total(state, "org", "") == (1, 7)


def test_what_moved_here_is_not_counted_again_when_it_is_sent_here() -> None:
    state: State = watch_rows.new_state()
    old = row()
    there = revised(old, org_id="other")
    moved = [correction_record(1, [], [there], START), correction_record(2, [old], [revised(old, **EMPTY)], START)]
    fold_records(state, [rows_record(0, [old]), *moved])
    fold_records(state, [rows_record(3, [{**old, "org_id": "other", "src_offset": 5}])])
    assert (total(state, "org", ""), total(state, "org", "", "other")) == ((0, 0), (1, 1_000))


def test_a_sealed_hour_waits_for_its_repair() -> None:
    state: State = watch_rows.new_state()
    old = row()
    sealed_s = START + watch_rows.RULES.horizon_s + 3_600
    fold_records(state, [rows_record(0, [old]), tick(1, sealed_s)])
    fold_records(state, [correction_record(2, [old], [revised(old, cost_nano=7)], sealed_s)])
    assert total(state, "org", "") == (1, 1_000)
    assert state.deferred == {("acme", START // 3_600): 2}


def test_a_correction_that_crosses_a_budget_alerts_at_its_own_time() -> None:
    state: State = watch_rows.new_state()
    value, headers = control_record(PolicySet(policy=Policy(org_id="acme", scope="org", daily_limit_micro=10)))
    old = row()
    log = [Record(0, START * 1000, headers, value), rows_record(1, [old])]
    assert fold_records(state, log) == []
    at_s = START + 60
    dear = revised(old, cost_nano=9_000, cost_eur_nano=9_000)
    alerts = fold_records(state, [correction_record(2, [old], [dear], at_s)])
    assert [alert.facts["threshold_pct"] for alert in alerts] == [20, 50, 80]
    assert {round(alert.received_at.timestamp()) for alert in alerts} == {at_s}
