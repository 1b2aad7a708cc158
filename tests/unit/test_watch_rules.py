"""Tables for the rules of WATCH: thresholds, spikes, loops, unpriced share, memory of ids, periods."""

import asyncio
import io
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import pytest

from tests.watch_rows import START, frame, new_state, row
from tollmeter.schemas.alert import Alert, alert_id
from tollmeter.schemas.envelope import rows_headers, tick_record
from tollmeter.schemas.policy import Limit, Policy
from tollmeter.schemas.priced import FORMAT_VERSION
from tollmeter.schemas.record import Headers
from tollmeter.streams.rules.limits.budgets import Edge, crossed, severity
from tollmeter.streams.rules.limits.policies import Budget, budgets_of
from tollmeter.streams.rules.windows.anomalies import SpikeFloors, is_loop, spike_threshold, unpriced_share
from tollmeter.streams.rules.windows.barriers import barrier, move_clocks
from tollmeter.streams.rules.windows.controls import fold_policy, fold_policy_delete
from tollmeter.streams.rules.windows.dedupe import SLICE_US, Dedupe
from tollmeter.streams.rules.windows.fold import fold_rows
from tollmeter.streams.rules.windows.snapshot import snapshot, undo
from tollmeter.streams.rules.windows.state import State
from tollmeter.streams.rules.windows.totals import COLUMNS, MEASURES, PEAKS, bucket_at, bucket_start_s, period_text
from tollmeter.streams.rules.windows.windows import Cells
from tollmeter.streams.watch.records import fold_records, remember, weight

FLOORS = SpikeFloors(minute_nano=1_000, hour_nano=5_000, new_key_hour_nano=10_000, factor=3)
USD = 10**9


def a_budget(amount: int, *pcts: int) -> Budget:
    policy = Policy(org_id="a", limits=(Limit(period="day", measure="tokens", amount=amount),), alert_pcts=pcts)
    (budget,) = budgets_of(policy, "org", "", pcts[0])
    return budget


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        pytest.param(0, 19, [], id="below the first"),
        pytest.param(0, 20, [20], id="exactly at a threshold counts"),
        pytest.param(20, 49, [], id="not again"),
        pytest.param(19, 100, [20, 50, 80, 100], id="several at once, ascending"),
        pytest.param(100, 500, [], id="beyond the last"),
        pytest.param(79, 80, [80], id="one nano before to one at"),
    ],
)
def test_thresholds_fire_on_the_addition_that_crosses(before: int, after: int, expected: list[int]) -> None:
    assert [edge.pct for edge in crossed(a_budget(100, 80, 20, 50, 100, 20), before, after)] == expected


def test_thresholds_of_limits_that_no_percent_divides_are_exact() -> None:
    budget = a_budget(333, 50)
    assert crossed(budget, 166, 166) == []
    assert crossed(budget, 166, 167) == [Edge("50", 167)]  # 166.5 is half of it


@pytest.mark.parametrize(
    ("pct", "level"), [(20, "info"), (79, "info"), (80, "warning"), (100, "critical"), (150, "critical")]
)
def test_severity(pct: int, level: str) -> None:
    assert severity(Edge(str(pct), 1)) == level


@pytest.mark.parametrize(
    ("level", "peak", "threshold"),
    [
        pytest.param("minute", 100, 1_000, id="floor above three times a small past"),
        pytest.param("minute", 1_000, 3_000, id="three times the past"),
        pytest.param("minute", 0, np.iinfo(np.int64).max, id="no past: minutes say nothing"),
        pytest.param("hour", 0, 10_000, id="no past: the absolute floor"),
        pytest.param("hour", 1_000, 5_000, id="hour floor"),
        pytest.param("hour", 4_000, 12_000, id="hour, three times the past"),
    ],
)
def test_spike_thresholds(level: str, peak: int, threshold: int) -> None:
    assert spike_threshold(level, np.array([peak]), FLOORS).tolist() == [threshold]


def _hours(*pairs: tuple[int, int]) -> Any:
    values = np.zeros((len(pairs), len(COLUMNS)), dtype=np.int64)
    for position, (inputs, outputs) in enumerate(pairs):
        values[position, MEASURES.index("input_tokens")] = inputs
        values[position, MEASURES.index("output_tokens")] = outputs
    return values


@pytest.mark.parametrize(
    ("inputs", "outputs", "past", "expected"),
    [
        pytest.param(1_000_000, 0, (), False, id="exactly a million is not more"),
        pytest.param(1_000_001, 0, (), True, id="no output at all"),
        pytest.param(2_000_000, 100_000, (), False, id="ratio exactly 20"),
        pytest.param(2_100_000, 100_000, (), True, id="ratio 21, no past"),
        pytest.param(2_100_000, 100_000, ((1_000, 100),), False, id="ratio 21 is below 8 x 10"),
        pytest.param(9_000_000, 100_000, ((1_000, 100),), True, id="ratio 90 is above 8 x 10"),
        pytest.param(2_100_000, 100_000, ((0, 50),), True, id="hours without input are no past"),
    ],
)
def test_ingest_loop(inputs: int, outputs: int, past: tuple[tuple[int, int], ...], expected: bool) -> None:
    assert is_loop(inputs, outputs, _hours(*past)) is expected


def test_unpriced_share_needs_volume_and_more_than_the_share() -> None:
    values = np.zeros((3, len(COLUMNS)), dtype=np.int64)
    calls, unknown = MEASURES.index("calls"), MEASURES.index("unknown_model")
    values[:, calls] = [99, 100, 100]
    values[:, unknown] = [99, 1, 2]
    assert unpriced_share(values, 1.0).tolist() == [2]


def test_seen_knows_resends_across_and_inside_batches_and_scopes_ids_by_organisation() -> None:
    seen = Dedupe(cap=100)
    ids = pl.Series([f"00000000-0000-4000-8000-{n:012x}" for n in (1, 2, 1, 1)])
    times = np.array([5, 5, 5, 5])
    assert seen.first(times, np.array([0, 0, 0, 1]), ids).tolist() == [True, True, False, True]
    assert seen.first(times, np.array([0, 0, 0, 1]), ids).tolist() == [False] * 4
    again = seen.first(times + 1, np.array([0, 0, 0, 1]), ids)  # another time makes it another event, as in the ledger
    assert again.tolist() == [True, True, False, True]
    assert seen.size == 6


def test_seen_forgets_the_oldest_beyond_its_cap_and_says_from_when_on_it_remembers() -> None:
    seen = Dedupe(cap=2)
    ids = pl.Series([f"00000000-0000-4000-8000-{n:012x}" for n in range(3)])
    seen.first(np.array([0, SLICE_US, 2 * SLICE_US]), np.zeros(3, dtype=np.int64), ids)
    assert seen.forget_before(0) == SLICE_US
    assert seen.size == 2
    assert seen.forget_before(3 * SLICE_US) == 3 * SLICE_US
    assert seen.size == 0


def test_a_cell_takes_nothing_at_or_below_its_stamp() -> None:
    cells = Cells()
    one = np.ones((1, len(MEASURES)), dtype=np.int64)
    cells.load(np.array([3]), np.full((1, len(COLUMNS)), 7, dtype=np.int64), np.array([10]))
    before, after = cells.add(np.array([3]), one, 10)
    assert (before[0, 0], after[0, 0]) == (7, 7)
    before, after = cells.add(np.array([3]), one, 11)
    assert (before[0, 0], after[0, 0]) == (7, 8)


@pytest.mark.parametrize(
    ("level", "text", "start"),
    [
        ("minute", "2026-11-20T10:00", START),
        ("hour", "2026-11-20T10", START),
        ("day", "2026-11-20", START - 36_000),
        ("month", "2026-11", START - 36_000 - 19 * 86_400),
    ],
)
def test_buckets_are_named_and_begin_in_utc(level: str, text: str, start: int) -> None:
    bucket = bucket_at(level, START)
    assert period_text(level, bucket) == text
    assert bucket_start_s(level, bucket) == start
    assert bucket_at(level, bucket_start_s(level, bucket + 1) - 1) == bucket


def _spend(state: State, number: int, cost: int, at_s: float, **changed: Any) -> list[Alert]:
    return fold_rows(state, frame([row(number, at_s, cost_nano=cost, **changed)]), state.applied + 1)


def test_a_new_key_alerts_at_the_absolute_floor_and_names_the_event_that_crossed() -> None:
    state = new_state()
    assert _spend(state, 1, 10 * USD, START) == []
    alerts = fold_rows(state, frame([row(2, START + 1, cost_nano=1), row(3, START + 2, cost_nano=1)]), 1)
    assert [(alert.kind, alert.facts["window"], alert.facts["cost_nano"]) for alert in alerts] == [
        ("spend_spike", "hour", 10 * USD + 1)
    ]
    assert alerts[0].received_at.timestamp() == START + 1
    assert _spend(state, 4, 5 * USD, START + 3) == []


def test_an_old_key_alerts_when_a_minute_is_a_new_extreme() -> None:
    state = new_state()
    for minute in range(5):
        _spend(state, minute, USD // 2, START + 60 * minute)
    move_clocks(state, {0: (START + 900) * 1000, 1: (START + 900) * 1000}, state.applied + 1)
    barrier(state, caught_up=True)
    assert _spend(state, 10, 3 * USD // 2, START + 900) == []  # exactly three times the dearest minute
    alerts = _spend(state, 11, 1, START + 901)
    assert [(alert.kind, alert.facts["window"]) for alert in alerts] == [("spend_spike", "minute")]


def test_a_call_on_the_users_own_key_never_counts_toward_a_budget() -> None:
    state = new_state()
    fold_policy(state, Policy(org_id="acme", daily_limit_micro=1), 0, START * 1000)
    assert [a for a in _spend(state, 1, 5_000, START, billing_scope="USER") if a.kind == "budget"] == []
    assert len([a for a in _spend(state, 2, 5_000, START, billing_scope="UNKNOWN") if a.kind == "budget"]) == 4


def test_money_at_risk_counts_toward_a_budget() -> None:
    state = new_state()
    fold_policy(state, Policy(org_id="acme", monthly_limit_micro=10), 0, START * 1000)
    alerts = _spend(state, 1, 0, START, at_risk_nano=5_000)
    assert [alert.facts["threshold_pct"] for alert in alerts] == [20, 50]
    assert {alert.period for alert in alerts} == {"2026-11"}


def test_a_raised_limit_alerts_once_more_under_another_id_and_a_deleted_one_never() -> None:
    state = new_state()
    small = Policy(org_id="acme", daily_limit_micro=1, alert_pcts=(100,), warn_threshold_pct=100)
    fold_policy(state, small, 0, START * 1000)
    first = _spend(state, 1, 1_000, START)
    raised = small.model_copy(update={"daily_limit_micro": 2})
    assert fold_policy(state, raised, state.applied + 1, START * 1000) == []
    second = _spend(state, 2, 1_000, START)
    assert [len(first), len(second)] == [1, 1]
    assert first[0].id != second[0].id
    fold_policy_delete(state, small.policy_id, state.applied + 1, START * 1000)
    fold_policy_delete(state, "never/was/there/pool/USD", state.applied + 1, START * 1000)
    assert _spend(state, 3, 10**9, START) == []


def test_a_new_policy_is_evaluated_at_once() -> None:
    state = new_state()
    _spend(state, 1, 900, START)
    alerts = fold_policy(state, Policy(org_id="acme", daily_limit_micro=1), state.applied + 1, (START + 5) * 1000)
    assert [alert.facts["threshold_pct"] for alert in alerts] == [20, 50, 80]


def test_a_failed_checkpoint_keeps_buckets_that_were_sealed_and_forgotten_meanwhile() -> None:
    state = new_state()
    fold_rows(state, frame([row(1, START), row(2, START + 60)]), 0)
    failed = snapshot(state)
    late = dict.fromkeys((0, 1), (START + 90 * 60) * 1000)
    move_clocks(state, late, 1)
    barrier(state, caught_up=True)
    assert not state.levels["minute"]
    undo(state, failed)
    again = snapshot(state)
    key, stamp = ["level", "bucket", "org_id", "scope", "name"], ["stamp", *PEAKS]
    assert again.cells.drop(stamp).sort(key).equals(failed.cells.drop(stamp).sort(key))


class Record(NamedTuple):
    offset: int
    timestamp: int
    headers: list[tuple[str, bytes]]
    value: bytes | None


@pytest.mark.parametrize(
    ("headers", "value"),
    [
        pytest.param([], b"", id="no headers"),
        pytest.param([("format", b"x"), ("kind", b"rows")], b"", id="format is no number"),
        pytest.param([("format", b"1"), ("kind", b"poem")], b"", id="unknown kind"),
        pytest.param([("format", b"1"), ("kind", b"rows")], b"garbage", id="rows that are no Arrow stream"),
        pytest.param([("format", b"1"), ("kind", b"tick")], b'{"clocks": {"x": 1}}', id="tick with a wrong clock"),
        pytest.param([("format", b"1"), ("kind", b"control")], b"{}", id="control without a body"),
        pytest.param([("format", b"1"), ("kind", b"repair")], b"", id="repair without its round"),
        pytest.param([("format", b"1"), ("kind", b"rows")], None, id="no value"),
    ],
)
def test_what_is_no_priced_record_is_passed_over(headers: list[tuple[str, bytes]], value: bytes | None) -> None:
    state = new_state()
    value_of_tick, headers_of_tick = tick_record({0: 5, 1: 7})
    fold_records(state, [Record(0, 0, headers, value), Record(1, 0, headers_of_tick, value_of_tick)])
    assert (state.applied, state.clocks) == (1, {0: 5, 1: 7})


@pytest.mark.parametrize("broken", [b"garbage", b"", None, b"\xff" * 40])
def test_ids_are_read_back_around_a_record_that_is_none(broken: bytes | None) -> None:
    log: list[Record] = []
    for number in range(4):
        out = io.BytesIO()
        frame([row(number)]).write_ipc_stream(out)
        log.append(Record(number, 0, [("format", b"1"), ("kind", b"rows")], out.getvalue()))
    log.insert(2, Record(9, 0, [("format", b"1"), ("kind", b"rows")], broken))
    state = new_state()
    state.applied = 9

    async def read_back(_partition: int, _since_ms: int, _end: int) -> AsyncIterator[list[Any]]:
        yield log

    asyncio.run(remember(read_back, state))
    assert state.seen.size == 4


def test_a_newer_format_halts_the_partition_before_the_record() -> None:
    state = new_state()
    value, headers = tick_record({0: 5, 1: 7})
    newer = [("format", b"%d" % (FORMAT_VERSION + 1)), ("kind", b"rows")]
    fold_records(state, [Record(0, 0, headers, value), Record(1, 0, newer, b"?"), Record(2, 0, headers, value)])
    assert state.applied == 0
    assert "newer" in state.halted


def test_alert_ids_cannot_collide_by_where_a_part_ends() -> None:
    assert alert_id("a", "bc") != alert_id("ab", "c")
    assert alert_id("a", "") != alert_id("", "a")


def delivery(*headers: Headers) -> Any:
    return SimpleNamespace(value=[SimpleNamespace(headers=one) for one in headers])


def test_a_delivery_weighs_its_rows_and_no_less_than_its_records() -> None:
    """A tick a second of many partitions is no backlog that waits for more; 1,600 rows are."""
    tick, rows = tick_record({0: 1})[1], rows_headers(700, [], "book", "boot")
    assert [weight(delivery(tick)), weight(delivery(tick, tick)), weight(delivery(tick, rows, rows))] == [1, 2, 1_400]
    assert weight(delivery([("rows", b"many")])) == 1
