"""The rollup equals a plain group-by of the ledger, whatever came twice, late or corrected, and in what order."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.effort import examples
from tests.priced_rows import frame, ipc, row
from tollmeter.settings import Settings
from tollmeter.sinks.clickhouse.client import ClickHouse, connect
from tollmeter.sinks.clickhouse.rollup import GAP_FACTOR, _oldest, _pause, _statements, step

NOW = datetime(2026, 11, 20, 10, 0, tzinfo=UTC)
DAYS = 400


@dataclass(frozen=True)
class Delivery:
    """One event of a small pool, as a producer sent it or as a correction changed it."""

    number: int
    revision: int
    model: str
    cost: int | None

    def row(self) -> dict[str, Any]:
        return row(
            self.number,
            event_time=NOW + timedelta(minutes=self.number % 5 * 7, seconds=self.number),
            org_id=f"org{self.number % 2}",
            model=self.model,
            revision=self.revision,
            cost_nano=self.cost,
            input_tokens=self.number,
            status="ERROR" if self.cost == 0 else "OK",
        )


deliveries = st.builds(
    Delivery,
    st.integers(0, 30),
    st.sampled_from([1, 1, 1, 2, 3]),
    st.sampled_from(["a", "b"]),
    st.sampled_from([None, 0, 1, 999, 10**12]),
)
batches = st.lists(st.lists(deliveries, min_size=1, max_size=8), min_size=1, max_size=4)


@pytest.fixture(scope="module", name="ledger")
def connected(ledger_settings: Settings) -> Iterator[ClickHouse]:
    client = connect(ledger_settings)
    yield client
    client.close()


def _forget(ledger: ClickHouse, *tables: str) -> None:
    for table in tables:
        ledger.command(f"TRUNCATE TABLE {table}")


def _insert(ledger: ClickHouse, rows: list[dict[str, Any]], offset: int, age_s: float | None = None) -> None:
    made = frame(rows, offset=offset)
    if age_s is not None:
        inserted_at = datetime.now(UTC) - timedelta(seconds=age_s)
        made = made.with_columns(pl.lit(inserted_at).cast(pl.Datetime("us", "UTC")).alias("inserted_at"))
    ledger.insert_arrow("usage_events", ipc(made), made.columns)


def _rollup(ledger: ClickHouse) -> dict[tuple[Any, ...], tuple[int, ...]]:
    rows = ledger.query(
        "SELECT minute, org_id, model, calls, errors, unpriced, input_tokens, cost_nano "
        "FROM usage_minutes FINAL WHERE calls > 0"
    )
    names = ("calls", "errors", "unpriced", "input_tokens", "cost_nano")
    return {(line["minute"], line["org_id"], line["model"]): tuple(line[name] for name in names) for line in rows}


def _oracle(delivered: list[tuple[int, dict[str, Any]]]) -> dict[tuple[Any, ...], tuple[int, ...]]:
    """One row per identity: the highest revision, among equals the first in the log; then plain sums."""
    kept: dict[Any, tuple[tuple[int, int], dict[str, Any]]] = {}
    for offset, line in delivered:
        identity = (line["event_time"], line["org_id"], line["event_id"])
        rank = (line["revision"], -offset)
        if identity not in kept or rank > kept[identity][0]:
            kept[identity] = (rank, line)
    sums: dict[tuple[Any, ...], list[int]] = {}
    for _, line in kept.values():
        key = (line["event_time"].replace(second=0, microsecond=0), line["org_id"], line["model"])
        total = sums.setdefault(key, [0] * 5)
        unpriced = line["cost_nano"] is None
        for place, value in enumerate(
            (1, line["status"] == "ERROR", unpriced, line["input_tokens"], line["cost_nano"] or 0)
        ):
            total[place] += value
    return {key: tuple(total) for key, total in sums.items()}


@pytest.mark.stack
@settings(
    max_examples=examples(12),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(sent=batches, steps=st.lists(st.booleans(), min_size=4, max_size=4), forgetful=st.booleans())
def test_rollup_equals_the_ledger(
    ledger: ClickHouse, ledger_settings: Settings, sent: list[list[Delivery]], steps: list[bool], forgetful: bool
) -> None:
    at_once = ledger_settings.model_copy(update={"rollup_quiet_s": 0.0})
    _forget(ledger, "usage_events", "usage_minutes", "rollup_progress")
    delivered: list[tuple[int, dict[str, Any]]] = []
    for offset, (batch, run) in enumerate(zip(sent, steps, strict=False)):
        # within one record an id stands once: two rows of one offset would be equal in rank
        rows = list({entry.number: entry.row() for entry in batch}.values())
        _insert(ledger, rows, offset)
        delivered += [(offset, line) for line in rows]
        if run:
            step(ledger, at_once)
            if forgetful:
                _forget(ledger, "rollup_progress")
    step(ledger, at_once)
    assert _rollup(ledger) == _oracle(delivered)


@pytest.mark.stack
def test_a_minute_waits_until_it_is_quiet_and_is_computed_once(ledger: ClickHouse, ledger_settings: Settings) -> None:
    _forget(ledger, "usage_events", "usage_minutes", "rollup_progress")
    _insert(ledger, [row(1, event_time=NOW)], 0, age_s=20)
    assert step(ledger, ledger_settings).waiting == 1
    _forget(ledger, "usage_events", "rollup_progress")
    _insert(ledger, [row(1, event_time=NOW)], 0, age_s=300)
    first, second = step(ledger, ledger_settings), step(ledger, ledger_settings)
    assert (first.minutes, first.waiting) == (1, 0)
    assert (second.minutes, second.waiting) == (0, 0)
    step(ledger, ledger_settings)
    (progress,) = ledger.query("SELECT covered_until FROM rollup_progress FINAL")
    assert datetime.now(UTC) - progress["covered_until"] < timedelta(seconds=60)


@pytest.mark.stack
def test_a_late_row_waits_for_the_gap_and_a_restless_minute_waits_no_longer(
    ledger: ClickHouse, ledger_settings: Settings
) -> None:
    quick = ledger_settings.model_copy(update={"rollup_quiet_s": 60.0})
    _forget(ledger, "usage_events", "usage_minutes", "rollup_progress")
    _insert(ledger, [row(1, event_time=NOW, cost_nano=1)], 0, age_s=300)
    step(ledger, quick)
    _insert(ledger, [row(2, event_time=NOW, cost_nano=2)], 1)
    late = step(ledger, quick)
    assert (late.minutes, late.waiting) == (0, 1)  # computed a moment ago
    _forget(ledger, "usage_minutes", "rollup_progress")
    _insert(ledger, [row(3, event_time=NOW, cost_nano=4)], 2, age_s=60 * GAP_FACTOR + 5)
    assert step(ledger, quick).minutes == 1  # never quiet, but the first of its rows has waited for long
    assert [values[-1] for values in _rollup(ledger).values()] == [7]


@pytest.mark.stack
def test_times_that_no_minute_can_hold_are_left_out(ledger: ClickHouse, ledger_settings: Settings) -> None:
    _forget(ledger, "usage_events", "usage_minutes", "rollup_progress")
    far = [datetime(1950, 1, 1, tzinfo=UTC), datetime(2150, 1, 1, tzinfo=UTC), NOW, datetime(1970, 1, 1, tzinfo=UTC)]
    _insert(ledger, [row(number, event_time=at, received_at=NOW) for number, at in enumerate(far)], 0, age_s=300)
    assert step(ledger, ledger_settings).minutes == 2
    assert sorted(key[0] for key in _rollup(ledger)) == [datetime(1970, 1, 1, tzinfo=UTC), NOW]


def test_a_slow_step_is_followed_by_a_long_pause_but_by_none_in_which_minutes_grow_too_old() -> None:
    assert _pause(0.5, 60.0, left=False) == 10.0  # as often as one looks for minutes that are quiet by now
    assert _pause(2.0, 60.0, left=False) == _pause(2.0, 60.0, left=True) == pytest.approx(38.0)
    assert _pause(100.0, 60.0, left=True) == 60.0 * GAP_FACTOR
    assert _pause(5.0, 0.3, left=False) == 0.3 * GAP_FACTOR


def test_minutes_that_retention_may_have_touched_are_never_computed() -> None:
    old_database, young_database = NOW - timedelta(days=DAYS), NOW - timedelta(days=DAYS / 4)
    assert _oldest(NOW, old_database, DAYS) == NOW - timedelta(days=360)
    assert _oldest(NOW, young_database, DAYS) == datetime(1970, 1, 1, tzinfo=UTC)  # nothing can be gone yet
    assert _oldest(NOW, NOW, 1) == NOW - timedelta(days=0.9)


@given(
    st.lists(
        st.tuples(st.integers(0, 10**6).map(lambda minute: minute * 60), st.integers(1, 400_000)),
        unique_by=lambda d: d[0],
    )
)
def test_statements_hold_every_minute_once_and_stay_small(due: list[tuple[int, int]]) -> None:
    due.sort()
    cut = list(_statements(due))
    assert Counter(minute for minutes in cut for minute in minutes) == Counter(minute for minute, _ in due)
    rows = dict(due)
    for minutes in cut:
        assert len(minutes) <= 2_000
        assert sum(rows[minute] for minute in minutes[:-1]) < 500_000
        assert all(after - before <= 3_600 for before, after in pairwise(minutes))
