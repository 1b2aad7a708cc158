"""Law: which names share `__other__` follows from the log alone, however it is cut or resumed, and no sum is lost."""

import random
from collections import defaultdict
from dataclasses import replace
from typing import Any

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import watch_rows
from tests.effort import examples
from tests.laws.test_fold import Record, rows_record
from tollmeter.schemas.control import PolicySet
from tollmeter.schemas.envelope import control_record
from tollmeter.schemas.policy import Policy
from tollmeter.schemas.progress import Progress
from tollmeter.streams.rules.windows.cardinality import OTHER, fold_names
from tollmeter.streams.rules.windows.snapshot import restore, snapshot
from tollmeter.streams.rules.windows.state import State
from tollmeter.streams.rules.windows.totals import MEASURES, bucket_at
from tollmeter.streams.watch.records import fold_records

LIMIT = 3
RULES = replace(watch_rows.RULES, scopes_per_org=LIMIT, sources=1)
NEW_YEAR = 1_798_761_600
"""2027-01-01T00:00Z: rows around it belong to two months."""
WATCHED = Policy(org_id="a", scope="api_key", name="k9", daily_limit_micro=10**9)
Names = dict[tuple[str, str, int, str], int]
"""(org, kind, month, name) -> calls."""


def a_log(rng: random.Random) -> tuple[list[Record], Names]:
    """Rows of many names in two months, with a budget on one of them, and who has totals of his own by the rule."""
    calls: Names = defaultdict(int)
    records: list[Record] = []
    number, has_budget = 0, False
    value, headers = control_record(PolicySet(policy=WATCHED))
    for offset in range(rng.randint(2, 12)):
        if not has_budget and rng.random() < 0.2:
            has_budget = True
            records.append(Record(offset, (NEW_YEAR - 4_000) * 1000, headers, value))
            continue
        rows = []
        for _ in range(rng.randint(1, 8)):
            at = NEW_YEAR + rng.randint(-600, 600)
            key, ip = f"k{rng.randint(0, 9)}", rng.choice(["", *(f"10.0.0.{n}" for n in range(8))])
            row = watch_rows.row(
                number,
                at,
                offset=number,
                received_s=NEW_YEAR + 600,
                org_id=rng.choice("ab"),
                api_key_id=key,
                client_ip=ip,
            )
            rows.append(row)
            number += 1
            for kind, name in (("api_key", key), ("client_ip", ip)):
                family = (row["org_id"], kind, bucket_at("month", int(at)))
                own = sum(1 for known in calls if known[:3] == family and known[3] != OTHER)
                budget = has_budget and (row["org_id"], kind, name) == ("a", "api_key", "k9")
                if name:
                    known = (*family, name) in calls
                    calls[*family, name if known or budget or own < LIMIT else OTHER] += 1
        records.append(rows_record(offset, rows))
    return records, dict(calls)


def live(state: State) -> Names:
    found: Names = {}
    for month, cells in state.levels["month"].items():
        for number, values in zip(cells.scopes.tolist(), cells.values.tolist(), strict=True):
            org, kind, name = state.scopes.names[number]
            if kind in ("api_key", "client_ip") and values[0]:
                found[org, kind, month, name] = values[0]
    return found


@given(st.integers(0, 10**9))
@settings(max_examples=examples(20), deadline=None)
def test_names_have_their_places_by_the_log_alone(seed: int) -> None:
    rng = random.Random(seed)
    records, expected = a_log(rng)
    whole, cut = State(0, RULES), State(0, RULES)
    fold_records(whole, records)
    assert live(whole) == expected
    saved: dict[tuple[Any, ...], dict[str, Any]] = {}
    for record in records:
        fold_records(cut, [record])
        if rng.random() < 0.4:  # a checkpoint, perhaps without its last part, and a start from it
            taken = snapshot(cut)
            saved |= {
                tuple(cell[name] for name in ("level", "bucket", "org_id", "scope", "name")): cell
                for cell in taken.cells.to_dicts()
            }
            cells = pl.DataFrame(list(saved.values()), schema=taken.cells.schema)
            policies = list(cut.budgets.policies.values())
            cut = State(0, RULES)
            restore(cut, Progress.read(taken.progress.text()), cells, policies)
    assert live(cut) == expected


def test_a_name_taken_out_later_gets_its_hours_by_repair() -> None:
    state = State(0, RULES)
    rows = [watch_rows.row(n, NEW_YEAR + 3_700, offset=n, org_id="a", api_key_id=f"k{n}") for n in range(10)]
    fold_records(state, [rows_record(0, rows)])
    month = bucket_at("month", NEW_YEAR)
    assert live(state)["a", "api_key", month, OTHER] == 7
    value, headers = control_record(PolicySet(policy=WATCHED))
    fold_records(state, [Record(1, (NEW_YEAR + 3_800) * 1000, headers, value)])
    assert state.deferred == {("a", NEW_YEAR // 3_600 + hour): 1 for hour in (0, 1)}
    again = watch_rows.row(10, NEW_YEAR + 3_900, offset=10, org_id="a", api_key_id="k9")
    fold_records(state, [rows_record(2, [again])])
    assert live(state)["a", "api_key", month, "k9"] == 1


def test_repairs_fold_the_same_names() -> None:
    own = pl.DataFrame({"month": [5, 5, 5], "scope": ["api_key"] * 3, "name": ["k1", "k2", OTHER]})
    totals = pl.DataFrame(
        [
            (1, 5, "org", "", 9),
            (1, 5, "api_key", "k1", 1),
            (1, 5, "api_key", "k7", 3),
            (1, 5, "api_key", "k8", 5),
            (1, 5, "client_ip", "x", 4),
            (1, 5, "client_ip", "y", 4),
            (1, 5, "client_ip", "z", 1),
            (1, 6, "api_key", "k8", 2),
        ],
        schema=["bucket", "month", "scope", "name", "calls"],
        orient="row",
    )
    folded = fold_names(totals, own, 2, ["bucket"])
    assert {tuple(row[1:4]): row[4] for row in folded.iter_rows()} == {
        (5, "org", ""): 9,
        (5, "api_key", "k1"): 1,
        (5, "api_key", OTHER): 8,
        (5, "client_ip", "x"): 4,
        (5, "client_ip", "y"): 4,
        (5, "client_ip", OTHER): 1,
        (6, "api_key", "k8"): 2,
    }


def test_a_flood_of_names_leaves_the_state_small() -> None:
    state = State(0, replace(watch_rows.RULES, scopes_per_org=100))
    for offset in range(10):
        rows = [
            watch_rows.row(n, NEW_YEAR + 10, offset=n, client_ip=f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}")
            for n in range(offset * 500, offset * 500 + 500)
        ]
        fold_records(state, [rows_record(offset, rows)])
    assert len(state.scopes) < 120
    assert len(state.scopes._texts) < 120
    calls = sum(value for (_, kind, _, _), value in live(state).items() if kind == "client_ip")
    assert calls == 5_000
    assert MEASURES[0] == "calls"
