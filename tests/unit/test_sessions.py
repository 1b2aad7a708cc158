"""Tables for defaults, sessions and runs in WATCH: who is bound, when one is forgotten, and that nothing unblocks."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import polars as pl
import pytest

from tests.unit.test_bindings import Line, each, pool, said
from tests.watch_rows import RULES, START
from tollmeter.schemas.policy import Policy
from tollmeter.schemas.spend import Spend
from tollmeter.settings import Settings
from tollmeter.streams.rules.limits.spend_rows import spend_rows
from tollmeter.streams.rules.windows.backfill import backfills, missing_cells
from tollmeter.streams.rules.windows.controls import fold_policy, fold_policy_delete
from tollmeter.streams.rules.windows.snapshot import restore, snapshot, undo
from tollmeter.streams.rules.windows.state import State
from tollmeter.streams.rules.windows.totals import MEASURES
from tollmeter.streams.watch.spend_publisher import SpendPublisher

DAY_S = 86_400
"""START is 10 in the morning of a day."""
MIDNIGHT = START // DAY_S * DAY_S + DAY_S


def default(scope: str, **fields: Any) -> Policy:
    return each(scope, **({"daily_limit_micro": 1} | fields))


def calling(
    line: Line, cost_nano: int, at_s: float = START, session: str = "", run: str = "", **fields: Any
) -> list[str]:
    return line.spend(cost_nano, at_s, session_id=session, trace_id=run, **fields)


def spent(state: State) -> dict[str, int]:
    return {row.name: row.spent for row in spend_rows(state, state.budgets.scopes)}


@pytest.mark.parametrize(("scope", "field"), [("user", "user_id"), ("api_key", "api_key_id"), ("agent", "agent")])
def test_a_default_binds_each_member_for_itself_also_one_that_appears_later(scope: str, field: str) -> None:
    line = Line(default(scope, warn_threshold_pct=100), each("org", daily_limit_micro=10**9, warn_threshold_pct=100))
    assert line.spend(999, **{field: "Ann"}) == []
    assert line.spend(999, **{field: "ann"}) == [], "another name is another member"
    assert line.spend(1, **{field: "Ann"}) == [f"{scope} Ann 100 2026-11-20"]
    assert line.spend(1, **{field: "ann"}) == [f"{scope} ann 100 2026-11-20"]
    assert line.spend(10**6, **{field: ""}) == [], "nobody has no limit of his own"


def test_an_own_policy_wins_whole_over_the_default_and_is_followed_by_it() -> None:
    line = Line(default("api_key", warn_threshold_pct=100), pool("api_key", "k1", monthly_limit_micro=10))
    assert line.spend(5_000, api_key_id="k1") == [], "five times the default of a day"
    gone = fold_policy_delete(line.state, "acme/api_key/k1/pool/USD", line.offset, START * 1_000)
    assert said(gone) == ["api_key k1 100 2026-11-20"], "the default holds again, and is spent already"
    assert said(line.policy(pool("api_key", "k1", daily_limit_micro=5))) == ["api_key k1 100 2026-11-20"]


def test_a_default_that_is_set_changed_or_deleted_finds_who_is_there_already() -> None:
    line = Line()
    line.spend(2_000, user_id="ann")
    assert said(line.policy(default("user", warn_threshold_pct=100))) == ["user ann 100 2026-11-20"]
    assert said(line.policy(default("user", daily_limit_micro=5, warn_threshold_pct=100))) == []
    assert line.spend(3_000, user_id="ann") == ["user ann 100 2026-11-20"]
    assert said(fold_policy_delete(line.state, "acme/user//each_member/USD", line.offset, START * 1_000)) == []
    assert line.spend(9_000, user_id="ann") == []
    assert spent(line.state) == {}


def test_the_smallest_of_default_and_each_member_policies_holds_for_a_user() -> None:
    line = Line(default("user", daily_limit_micro=2, warn_threshold_pct=100), each("org", daily_limit_micro=1))
    (row,) = spend_rows_of(line, "ann")
    assert (row.limit, row.policy_id) == (1_000, "acme/org//each_member/USD")


def spend_rows_of(line: Line, user: str) -> list[Spend]:
    line.spend(1, user_id=user)
    return [row for row in spend_rows(line.state, line.state.budgets.scopes) if row.name == user]


NAMES = ["s", "a/b", "%2F", "x" * 256, "Ünï", " ", "__other__", "*", "s\n"]


def test_each_session_and_each_run_is_counted_for_itself_whatever_it_is_called() -> None:
    line = Line(default("session", warn_threshold_pct=100), default("run", daily_limit_micro=2))
    for name in NAMES:
        assert calling(line, 999, session=name, run="r") == (["run r 80 2026-11-20"] if name == NAMES[1] else []), name
        if name == NAMES[1]:
            break
    for name in NAMES[2:]:
        assert calling(line, 999, session=name) == []
        assert calling(line, 1, session=name) == [f"session {name} 100 2026-11-20"]
    assert calling(line, 10**9) == [], "no session, no limit"
    assert calling(line, 999, session="own", billing_scope="USER") == []
    assert spent(line.state)["own"] == 0, "a call on the user's own key does not count"


def test_without_a_policy_nobody_looks_at_sessions() -> None:
    line = Line(pool(daily_limit_micro=10**9))
    line.spend(1)
    assert not [name for name in line.state.scopes.names if name[1] in ("session", "run")]
    line.policy(pool("session", "s1", daily_limit_micro=1))
    assert calling(line, 1_000, session="s2") == []
    assert calling(line, 1_000, session="s1") == ["session s1 100 2026-11-20"]
    assert ("acme", "session", "s2") not in line.state.scopes.names


def test_sessions_have_no_windows_but_those_of_their_limit() -> None:
    line = Line(default("session"))
    calling(line, 500, session="s1")
    cells = snapshot(line.state).cells
    assert cells.filter(scope="session").select("level", "name", "cost_nano").rows() == [("day@UTC", "s1", 500)]


def test_a_session_is_forgotten_with_its_period_and_its_number_goes_to_another() -> None:
    line = Line(default("session"))
    calling(line, 500, session="s1")
    (number,) = line.state.budgets.members("acme", "session").values()
    line.tick(MIDNIGHT + RULES.horizon_s - 61)
    snapshot(line.state)
    line.tick(MIDNIGHT + RULES.horizon_s - 1)
    assert line.state.budgets.members("acme", "session") == {"s1": number}, "late calls may still count for it"
    line.tick(MIDNIGHT + RULES.horizon_s)
    assert line.state.budgets.members("acme", "session") == {}
    later = MIDNIGHT + RULES.horizon_s
    assert calling(line, 999, later, session="s9", received_s=later) == ["session s9 80 2026-11-21"]
    assert line.state.budgets.members("acme", "session") == {"s9": number}
    assert calling(line, 1, later, session="s9", received_s=later) == ["session s9 100 2026-11-21"]


def test_what_no_snapshot_holds_is_not_forgotten() -> None:
    line = Line(default("session"))
    calling(line, 500, session="s1")
    line.tick(MIDNIGHT + RULES.horizon_s)
    assert line.state.budgets.members("acme", "session")
    assert snapshot(line.state).cells.filter(name="s1").height
    line.tick(MIDNIGHT + RULES.horizon_s + 60)
    assert not line.state.budgets.members("acme", "session")


def test_of_too_many_the_least_used_are_forgotten_and_never_one_that_spent_its_limit() -> None:
    line = Line()
    line.state = State(0, replace(RULES, sessions_per_org=10))
    line.policy(default("session"))
    for number in range(30):
        calling(line, 1_000 if number % 5 == 0 else number, session=f"s{number:02}")
    line.tick(START + 60)
    assert len(snapshot(line.state).cells.filter(scope="session", calls=0)) == 21, "written as empty first"
    line.tick(START + 120)
    kept = spent(line.state)
    assert {name: used for name, used in kept.items() if used >= 1_000} == {f"s{n:02}": 1_000 for n in range(0, 30, 5)}
    assert sorted(name for name, used in kept.items() if used < 1_000) == ["s27", "s28", "s29"]
    assert calling(line, 999, session="s01") == ["session s01 80 2026-11-20"], "one that comes back begins again"
    assert calling(line, 1, session="s01") == ["session s01 100 2026-11-20"]


def test_a_restart_knows_what_was_kept_and_not_what_was_emptied() -> None:
    line = Line()
    line.state = State(0, replace(RULES, sessions_per_org=2))
    policy = default("session")
    line.policy(policy)
    for number in range(6):
        calling(line, 1_000 if number == 0 else number, session=f"s{number}")
    first = snapshot(line.state)
    line.tick(START + 60)
    taken = snapshot(line.state)
    again = State(0, line.state.rules)
    cells = first.cells.join(taken.cells, on=["level", "bucket", "name"], how="anti").vstack(taken.cells)
    restore(again, taken.progress, cells.filter((cells["calls"] != 0) | (cells["scope"] != "session")), [policy])
    line.tick(START + 120)
    assert spent(again) == spent(line.state) == {"s0": 1_000}


def test_a_snapshot_that_failed_comes_back_under_its_own_name() -> None:
    line = Line(default("session"))
    calling(line, 500, session="s1")
    failed = snapshot(line.state)
    line.tick(MIDNIGHT + RULES.horizon_s)
    calling(line, 7, MIDNIGHT + RULES.horizon_s, session="s2", received_s=MIDNIGHT + RULES.horizon_s)
    undo(line.state, failed)
    cells = snapshot(line.state).cells.filter(scope="session").select("name", "cost_nano")
    assert sorted(cells.rows()) == [("s1", 500), ("s2", 7)]


def test_what_a_session_used_before_the_policy_counts() -> None:
    line = Line()
    calling(line, 5_000, session="s1")
    line.policy(default("session"))
    (backfill,) = backfills(line.state)
    assert (backfill.level, backfill.kinds) == ("day@UTC", ["session"])
    used = {"s1": 5_000, "s2": 3}
    measures = [[cost if name == "cost_nano" else 1 for name in MEASURES] for cost in used.values()]
    rows = [(backfill.current, "session", name, *values) for name, values in zip(used, measures, strict=True)]
    ledger = pl.DataFrame(rows, schema=["bucket", "scope", "name", *MEASURES], orient="row")
    found = missing_cells(backfill, ledger)
    assert found.select("name", "cost_nano").rows() == [("s1", 5_000), ("s2", 3)]
    least = missing_cells(replace(backfill, room=1), ledger)
    assert least.select("name", "cost_nano").rows() == [("s1", 5_000)], "of many the dearest"


class Sender:
    """Keeps what guards would read: the last record of each key."""

    def __init__(self) -> None:
        self.rows: dict[str, bytes | None] = {}

    async def send(
        self, topic: str, partition: int, key: bytes | None, value: bytes | None, headers: Sequence[Any]
    ) -> int:
        self.rows[(key or b"").decode()] = value
        return len(self.rows)


def test_guards_hear_that_a_session_is_gone_but_not_of_one_that_came_back() -> None:
    line, sender = Line(default("session"), pool("session", "s9", daily_limit_micro=1)), Sender()
    publisher = SpendPublisher(Settings(), sender.send)

    def tell(now: float) -> dict[str, bool]:
        asyncio.run(publisher.tell({0: line.state}, now))
        return {key.split("/")[3]: value is not None for key, value in sender.rows.items() if key.startswith("spend/")}

    calling(line, 500, session="s1")
    calling(line, 500, session="s2")
    line.tick(START)
    assert tell(10.0) == {"s9": True, "s1": True, "s2": True}
    snapshot(line.state)
    later = MIDNIGHT + RULES.horizon_s
    line.tick(later)
    calling(line, 1, later, session="s3", received_s=later)
    calling(line, 2, later, session="s2", received_s=later)
    assert tell(20.0) == {"s9": True, "s1": False, "s2": True, "s3": True}


@pytest.mark.parametrize(
    ("fields", "said_"),
    [
        (
            {"scope": "session", "name": "s1", "limits": [{"period": "rolling", "hours": 24, "amount": 1}]},
            "rolling hours are not kept",
        ),
        ({"scope": "model", "applies": "each_member"}, "name says which"),
        ({"scope": "user"}, "no other but a default"),
        ({"scope": "user", "name": "ann", "applies": "each_member"}, "each_member needs members"),
    ],
)
def test_what_is_no_default(fields: dict[str, Any], said_: str) -> None:
    with pytest.raises(ValueError, match=said_):
        Policy.model_validate({"org_id": "acme", "applies": "pool", **fields, "daily_limit_micro": 1})


def test_one_default_for_everybody_is_folded_like_any_other_policy() -> None:
    """Deleting it twice, or one that was never there, is no error."""
    line = Line()
    for _ in range(2):
        assert fold_policy_delete(line.state, "acme/run//each_member/USD", line.offset, START * 1_000) == []
    assert fold_policy(line.state, default("run"), line.offset, START * 1_000) == []
    assert line.state.budgets.asked["run"] == {"acme"}
    fold_policy_delete(line.state, "acme/run//each_member/USD", line.offset, START * 1_000)
    assert line.state.budgets.asked["run"] == set()
