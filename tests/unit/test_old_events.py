"""Spend of events that happened long before they came counts, and nobody is alerted of it; live spend alerts."""

from copy import deepcopy
from dataclasses import replace
from datetime import UTC, datetime
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import watch_rows
from tests.effort import examples
from tests.exchange import dated
from tests.usage_rows import AT, avro, fields
from tollmeter.schemas.alert import Alert
from tollmeter.schemas.control import Round
from tollmeter.schemas.policy import Member, Policy
from tollmeter.schemas.priced import BACKFILL
from tollmeter.schemas.times import H_BACKFILL
from tollmeter.streams.price.batch import price_batch
from tollmeter.streams.price.book.book import load
from tollmeter.streams.rules.windows.alerts import fresh
from tollmeter.streams.rules.windows.barriers import barrier, move_clocks
from tollmeter.streams.rules.windows.controls import fold_member, fold_policy
from tollmeter.streams.rules.windows.fold import fold_rows
from tollmeter.streams.rules.windows.repair import REPAIR_SCHEMA, due, fold_repair
from tollmeter.streams.rules.windows.snapshot import restore, snapshot
from tollmeter.streams.rules.windows.state import State
from tollmeter.streams.rules.windows.totals import MEASURES, PEAK_HOUR, PEAK_MINUTE, bucket_at, bucket_end_s

RULES = replace(watch_rows.RULES, sources=1)
HOUR = int(datetime(2026, 11, 10, tzinfo=UTC).timestamp()) // 3_600
MAX_AGE_S = 48 * 3_600
BOTH = Policy(org_id="acme", scope="org", daily_limit_micro=1, monthly_limit_micro=1)


def repaired(level: str, hours: tuple[int, ...], after_s: int) -> tuple[State, list[Alert]]:
    """A round of repair that brings spend beyond a limit, so long after the end of its newest hour."""
    state = State(0, RULES)
    fold_policy(state, BOTH, 0, 0)
    bucket = bucket_at(level, hours[0] * 3_600)
    totals = {**dict.fromkeys(MEASURES, 0), "calls": 1, "cost_nano": 5_000}
    cell = {"level": level, "bucket": bucket, "scope": "org", "name": "", "absolute": True, **totals}
    at_s = (max(hours) + 1) * 3_600 + after_s
    round_ = Round(id="a", org_id="acme", base=0, hours=hours)
    return state, fold_repair(state, round_, pl.DataFrame([cell], schema=REPAIR_SCHEMA), 1, at_s * 1_000)


MONTH_END_S = bucket_end_s("month", bucket_at("month", HOUR * 3_600))


@pytest.mark.parametrize(("after_s", "told"), [(0, True), (MAX_AGE_S, True), (MAX_AGE_S + 1, False)])
def test_old_spend_counts_and_its_budget_alerts_nobody(after_s: int, told: bool) -> None:
    state, alerts = repaired("month", (HOUR,), after_s)
    assert {alert.kind for alert in alerts} == {"budget"}
    assert state.to_publish, "guards are told all the same"
    assert fresh(alerts, (HOUR + 1) * 3_600 + after_s, MAX_AGE_S) == (alerts if told else [])


@pytest.mark.parametrize(("days", "told"), [(0, True), (1, True), (10, False)])
def test_old_spend_of_a_month_just_over_alerts_nobody(days: int, told: bool) -> None:
    """The month ended two hours ago: by its own date the alert would go out."""
    hour = MONTH_END_S // 3_600 - 1 - 24 * days
    now_s = MONTH_END_S + 7_200
    _, alerts = repaired("month", (hour,), now_s - (hour + 1) * 3_600)
    assert {alert.kind for alert in alerts} == {"late_spend"}
    assert fresh(alerts, now_s, MAX_AGE_S) == (alerts if told else [])


@pytest.mark.parametrize("days", [1, 3])
def test_the_row_that_crosses_decides_where_rows_are_folded_so_late(days: int) -> None:
    state = State(0, replace(RULES, horizon_s=10 * 86_400))
    fold_policy(state, Policy(org_id="acme", scope="org", monthly_limit_micro=1), 0, 0)
    at_s = (HOUR + 240) * 3_600
    rows = [
        watch_rows.row(1, at_s, cost_nano=10),
        watch_rows.row(2, at_s - days * 86_400, received_s=at_s, cost_nano=5_000),
    ]
    alerts = [alert for alert in fold_rows(state, watch_rows.frame(rows), 1) if alert.kind == "budget"]
    assert {alert.late_s for alert in alerts} == {days * 86_400}
    assert fresh(alerts, at_s, MAX_AGE_S) == (alerts if days == 1 else [])


@settings(max_examples=examples(60), deadline=None)
@given(st.lists(st.integers(0, 19 * 24), min_size=1, max_size=6), st.integers(0, 400_000))
def test_the_newest_event_decides(back: list[int], after_s: int) -> None:
    hours = tuple(sorted({HOUR + number for number in back}))
    _, alerts = repaired("month", hours, after_s)
    assert alerts
    assert {alert.late_s for alert in alerts} == {after_s}


# brought in afterwards ----------------------------------------------------------------------------------------------


def quietly(*rows: tuple[int, bool]) -> tuple[State, list[Alert]]:
    """Fold rows of some cost, brought in afterwards or live, in one batch and one by one."""
    made = [
        watch_rows.row(at, HOUR * 3_600, cost_nano=cost, flags=BACKFILL if quiet else "")
        for at, (cost, quiet) in enumerate(rows)
    ]
    found = []
    for cut in ([made], [[row] for row in made]):
        state = State(0, RULES)
        fold_policy(state, Policy(org_id="acme", scope="org", daily_limit_micro=10, alert_pcts=(50, 100)), 0, 0)
        alerts = [alert for at, part in enumerate(cut) for alert in fold_rows(state, watch_rows.frame(part), at + 1)]
        found.append((state, sorted(alerts, key=lambda alert: alert.id)))
    assert found[0][1] == found[1][1]
    return found[0]


def test_what_is_brought_in_afterwards_counts_and_alerts_nobody_and_live_spend_behind_it_does() -> None:
    state, alerts = quietly((6_000, True), (3_000, False))
    assert state.to_publish, "guards are told all the same"
    assert sorted(alert.facts["threshold_pct"] for alert in alerts) == [50, 80]
    assert [alert.facts["threshold_pct"] for alert in fresh(alerts, HOUR * 3_600, MAX_AGE_S)] == [80]


def test_a_key_that_was_brought_in_afterwards_is_no_spike() -> None:
    dear = 20 * 10**9
    assert [alert for alert in quietly((dear, True))[1] if alert.kind == "spend_spike"] == []
    assert [alert.kind for alert in quietly((dear, False))[1] if alert.kind == "spend_spike"] == ["spend_spike"]


@pytest.mark.parametrize("live", [False, True])
def test_hours_that_wait_for_nothing_live_are_repaired_in_silence(live: bool) -> None:
    state = State(0, RULES)
    late = [
        watch_rows.row(at, HOUR * 3_600, received_s=(HOUR + 9) * 3_600, flags="" if live and at == 2 else BACKFILL)
        for at in range(1, 4)
    ]
    fold_rows(state, watch_rows.frame([*late, watch_rows.row(9, (HOUR + 1) * 3_600, received_s=(HOUR + 9) * 3_600)]), 1)
    assert state.quiet_hours == (set() if live else {("acme", HOUR)})
    saved = snapshot(state).progress
    rounds = due(state.deferred, set(saved.quiet_hours), (HOUR + 20) * 3_600, 3_600)
    assert rounds == {"acme": (HOUR + 1, HOUR) if live else (HOUR + 1,)}
    round_ = Round(id="a", org_id="acme", base=1, hours=(HOUR,), quiet=True)
    fold_policy(state, BOTH, 2, 0)
    totals = {**dict.fromkeys(MEASURES, 0), "calls": 1, "cost_nano": 5_000}
    cell = {"level": "month", "bucket": bucket_at("month", HOUR * 3_600), "scope": "org", "name": "", "absolute": True}
    alerts = fold_repair(state, round_, pl.DataFrame([{**cell, **totals}], schema=REPAIR_SCHEMA), 3, HOUR * 3_600_000)
    assert alerts
    assert fresh(alerts, HOUR * 3_600, MAX_AGE_S) == []
    assert state.quiet_hours == set()


def test_what_is_brought_in_afterwards_trains_no_detector() -> None:
    rows = [watch_rows.row(at, HOUR * 3_600, flags=BACKFILL if at % 2 else "") for at in range(6)]
    state = State(0, RULES)
    noted = []
    state.detector.note = noted.append  # type: ignore[method-assign, assignment]
    fold_rows(state, watch_rows.frame(rows), 1)
    assert [calls.size for calls in noted] == [3]


@pytest.mark.parametrize(
    ("field", "header", "marked"), [(True, False, True), (False, True, True), (False, False, False)]
)
def test_a_field_marks_a_call_as_a_header_does(field: bool, header: bool, marked: bool) -> None:
    """A call of more than 400 days ago is taken when it is marked; unmarked it is refused."""
    long_ago = AT - 500 * 86_400_000_000
    headers, marked = [(H_BACKFILL, b"1")] if header else [], field or header
    values = [avro(fields(1, occurred_at=at, backfill=field)) for at in (AT, long_ago)]
    records = [
        SimpleNamespace(
            value=value, partition=0, offset=at, timestamp=AT // 1_000, topic="t", headers=headers, key=None
        )
        for at, value in enumerate(values)
    ]
    priced = price_batch([records], load(dated()))
    assert priced.rows["flags"].to_list() == ([BACKFILL] * 2 if marked else [""])
    assert [reject.reason for reject in priced.rejects] == ([] if marked else ["time_out_of_range"])


# A barrier far enough on closes what was open: the key's past is made of it.
DEAR, USUAL = 50 * 10**9, 2 * 10**9


def closed_after(state: State, hours: int, offset: int) -> list[Alert]:
    move_clocks(state, {0: (HOUR + hours) * 3_600_000 + 600_000}, offset)
    return barrier(state, caught_up=True)


@pytest.mark.parametrize(("quiet", "peak"), [(True, USUAL), (False, DEAR + USUAL)])
def test_what_is_brought_in_afterwards_raises_no_peak_of_a_key(quiet: bool, peak: int) -> None:
    """The key spent 2 USD live, and 50 USD of the same minute came in afterwards: its dearest minute cost 2 USD."""
    for cut in (1, 2):
        state = State(0, RULES)
        rows = [
            watch_rows.row(1, HOUR * 3_600, cost_nano=USUAL),
            watch_rows.row(2, HOUR * 3_600 + 1, cost_nano=DEAR, flags=BACKFILL if quiet else ""),
        ]
        for at, part in enumerate((rows,) if cut == 1 else ([one] for one in rows)):
            fold_rows(state, watch_rows.frame(part), at + 1)
        saved = snapshot(state)
        resumed = State(0, RULES)
        restore(resumed, saved.progress, saved.cells, [])
        for one in (state, resumed):
            closed_after(one, 1, 9)
            key = np.array([one.scopes.number(("acme", "api_key", "k"))], dtype=np.int64)
            assert one.past_peaks(key, PEAK_MINUTE).tolist() == [peak]
            assert one.past_peaks(key, PEAK_HOUR).tolist() == [peak]
            day = one.levels["day"][HOUR // 24].take(key)
            assert day[0, MEASURES.index("cost_nano")] == DEAR + USUAL, "it counts all the same"


def test_live_spend_is_a_spike_by_itself_alone() -> None:
    """19.5 USD that came in afterwards and 9 live are no spike of a new key (10 USD); 11 live are, and say 11."""
    near, beyond = (19_500_000_000, True), [(9_000_000_000, False), (2_000_000_000, False)]
    assert [alert for alert in quietly(near, beyond[0])[1] if alert.kind == "spend_spike"] == []
    (spike,) = [alert for alert in quietly(near, *beyond)[1] if alert.kind == "spend_spike"]
    assert spike.facts["cost_nano"] == 11_000_000_000


@pytest.mark.parametrize("quiet", [True, False])
def test_old_data_is_no_loop_and_no_flood_of_unpriced_calls(quiet: bool) -> None:
    state = State(0, RULES)
    said = {"input_tokens": 20_000, "output_tokens": 1, "price_status": "UNKNOWN_MODEL"}
    rows = [watch_rows.row(at, HOUR * 3_600, **said, flags=BACKFILL if quiet else "") for at in range(200)]
    fold_rows(state, watch_rows.frame([*rows, watch_rows.row(300, HOUR * 3_600 + 1)]), 1)
    move_clocks(state, {0: HOUR * 3_600_000 + 5_000}, 2)
    found = {alert.kind for alert in barrier(state, caught_up=True)}
    assert found & {"ingest_loop", "unpriced"} == (set() if quiet else {"ingest_loop", "unpriced"})


@pytest.mark.parametrize("quiet", [True, False])
def test_the_pace_of_a_budget_is_not_judged_by_what_was_brought_in_afterwards(quiet: bool) -> None:
    state = State(0, RULES)
    fold_policy(state, Policy(org_id="acme", monthly_limit_micro=1_000_000), 0, 0)
    fold_rows(state, watch_rows.frame([watch_rows.row(1, HOUR * 3_600, flags=BACKFILL if quiet else "")]), 1)
    assert bool(state.touched_budgets) is not quiet
    assert state.to_publish


@pytest.mark.parametrize("member", [False, True])
def test_late_spend_of_a_limit_that_only_calls_name_tells_guards_and_nobody_else(member: bool) -> None:
    """Ann may name group web without being in it: guards ask for her spend there, nobody is told that she went over."""
    state = State(0, RULES)
    web = Policy(org_id="acme", scope="group", name="web", applies="each_member", monthly_limit_micro=1)
    fold_policy(state, web, 0, 0)
    if member:
        fold_member(state, Member(org_id="acme", name="ann", groups=("web",)), 1, 0)
    totals = {**dict.fromkeys(MEASURES, 0), "calls": 1, "cost_nano": 5_000}
    for level_end_s, kind in ((MONTH_END_S - 7_200, "budget"), (MONTH_END_S + 7_200, "late_spend")):
        one = deepcopy(state)
        cell = {"level": "month", "bucket": bucket_at("month", HOUR * 3_600), "scope": "user", "name": "ann"}
        round_ = Round(id="a", org_id="acme", base=2, hours=(HOUR,))
        cells = pl.DataFrame([{**cell, "absolute": True, **totals}], schema=REPAIR_SCHEMA)
        alerts = fold_repair(one, round_, cells, 3, level_end_s * 1_000)
        assert {alert.kind for alert in alerts} == ({kind} if member else set())
        ann = one.scopes.number(("acme", "user", "ann"))
        assert ann in one.to_publish, "guards are told all the same"
