"""Totals that begin with a policy: names that come by a repair count; nothing is backfilled ahead of its cells."""

from dataclasses import replace

import numpy as np
import polars as pl

from tests import watch_rows
from tollmeter.schemas.control import Round
from tollmeter.schemas.policy import Limit, Policy
from tollmeter.streams.rules.windows.backfill import backfills
from tollmeter.streams.rules.windows.controls import fold_policy
from tollmeter.streams.rules.windows.repair import REPAIR_SCHEMA, fold_repair
from tollmeter.streams.rules.windows.state import State
from tollmeter.streams.rules.windows.totals import COLUMNS, MEASURES

RULES = replace(watch_rows.RULES, sources=1)
HOUR = watch_rows.START // 3_600
EACH = Policy(
    org_id="acme", scope="org", applies="each_member", daily_limit_micro=1, limits=(Limit(period="week", amount=1),)
)


def test_a_name_that_first_comes_by_a_repair_has_limits_and_is_backfilled_again() -> None:
    state = State(0, RULES)
    fold_policy(state, EACH, 0, 0)
    totals = {**dict.fromkeys(MEASURES, 0), "calls": 1, "cost_nano": 5_000}
    cell = {"level": "day", "bucket": HOUR // 24, "scope": "user", "name": "late", "absolute": True, **totals}
    alerts = fold_repair(
        state,
        Round(id="a", org_id="acme", base=0, hours=(HOUR,), extras=False),
        pl.DataFrame([cell], schema=REPAIR_SCHEMA),
        1,
        watch_rows.START * 1000,
    )
    number = state.scopes.number(("acme", "user", "late"))
    assert {alert.name for alert in alerts} == {"late"}
    assert number in state.to_publish
    assert state.unsettled == {"acme": 1}


def test_nothing_is_backfilled_before_the_state_has_caught_up_with_its_newest_cell() -> None:
    state = State(0, RULES)
    number = state.scopes.number(("acme", "user", "u"))
    fold_policy(state, EACH, 3, 0)
    state.move_clock(0, watch_rows.START * 1000)
    state.unsettled["acme"] = 3
    assert backfills(state)
    state.cells("day", HOUR // 24).load(np.array([number]), np.ones((1, len(COLUMNS)), dtype=np.int64), np.array([9]))
    assert backfills(state) == ()
