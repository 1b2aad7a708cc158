"""Settling against an oracle: whatever came late, before the policy or in between, extra totals become the ledger's."""

import random
from collections import defaultdict
from typing import Any

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.effort import examples
from tests.laws.test_fold import Record, rows_record
from tests.watch_rows import START, new_state, row
from tollmeter.schemas.control import PolicySet, Round
from tollmeter.schemas.envelope import control_record, tick_record
from tollmeter.schemas.policy import Limit, Policy
from tollmeter.streams.rules.windows.backfill import Backfill, backfills, missing_cells
from tollmeter.streams.rules.windows.state import State
from tollmeter.streams.rules.windows.totals import MEASURES, QUARTER, bucket_at
from tollmeter.streams.watch.records import fold_records
from tollmeter.streams.watch.repairs import repair_records

HOUR = 3_600
Rows = dict[str, tuple[int, dict[str, Any]]]
"""The ledger: per event id the offset of its first record, and the row."""


def names_of(call: dict[str, Any]) -> list[tuple[str, str]]:
    tags = [("tag", f"{tag['key']}={tag['value']}") for tag in call["tags"] or []]
    return [("org", ""), ("user", call["user_id"]), *tags]


def totals(ledger: Rows, level: str, upto: int, span: tuple[int, int]) -> dict[tuple[int, str, str], list[int]]:
    """Add up the rows up to an offset, one by one; only calls, tokens and cost differ between them."""
    found: dict[tuple[int, str, str], list[int]] = defaultdict(lambda: [0] * len(MEASURES))
    for offset, call in ledger.values():
        charged_s = min(call["event_time"], call["received_at"] * 1000) // 1_000_000
        if offset <= upto and span[0] <= charged_s < span[1]:
            for kind, name in names_of(call):
                cell = found[bucket_at(level, charged_s), kind, name]
                for measure in ("input_tokens", "output_tokens", "cost_nano"):
                    cell[MEASURES.index(measure)] += call[measure]
                cell[MEASURES.index("calls")] += 1
                cell[MEASURES.index("spend_eur_nano")] += call["cost_eur_nano"]
    return found


def as_frame(found: dict[tuple[int, str, str], list[int]]) -> pl.DataFrame:
    rows = [(*key, *values) for key, values in found.items()]
    schema = {"bucket": pl.Int64, "scope": pl.String, "name": pl.String, **dict.fromkeys(MEASURES, pl.Int64)}
    return pl.DataFrame(rows, schema=schema, orient="row")


class Line:
    """A log that grows, its fold, its ledger, and the rounds that are on their way."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.state: State = new_state()
        self.ledger: Rows = {}
        self.clock = START
        self.coming: list[tuple[Round, list[pl.DataFrame]]] = []
        self.rounds = self.number = 0

    def append(self, value: bytes, headers: Any) -> None:
        fold_records(self.state, [Record(self.state.applied + 1, self.clock * 1000, headers, value)])

    def rows(self) -> None:
        calls = []
        for _ in range(self.rng.randint(1, 5)):
            self.clock += self.rng.choice([0, 60, 1_000])
            at = self.clock - self.rng.choice([0, 0, 100, 2 * HOUR, 30 * HOUR, 9 * 24 * HOUR])
            calls.append(
                row(
                    self.number,
                    at,
                    source=0,
                    offset=self.number,
                    received_s=self.clock,
                    user_id=self.rng.choice(["u1", "u2"]),
                    cost_nano=self.rng.choice([0, 7, 900]),
                    tags=self.rng.choice([None, [{"key": "team", "value": "blue"}]]),
                )
            )
            self.number += 1
            if self.rng.random() < 0.2 and self.ledger:
                old = self.rng.choice(list(self.ledger.values()))[1]
                calls.append({**old, "src_offset": self.number, "received_at": self.clock * 1000})
                self.number += 1
        offset = self.state.applied + 1
        for call in calls:
            self.ledger.setdefault(call["event_id"], (offset, call))
        record = rows_record(offset, calls)
        self.append(record.value, record.headers)

    def tick(self) -> None:
        self.append(*tick_record({0: self.clock * 1000, 1: self.clock * 1000}))

    def policy(self) -> None:
        scope, name, applies = self.rng.choice(
            [("org", "", "pool"), ("org", "", "each_member"), ("tag", "team=blue", "pool"), ("user", "u1", "pool")]
        )
        window = self.rng.choice(["day", "week", "month", "rolling"])
        limit = Limit(period=window, amount=5, hours=40 if window == "rolling" else None)  # type: ignore[arg-type]
        policy = Policy(
            org_id="acme",
            scope=scope,
            name=name,
            applies=applies,
            limits=(limit,),  # type: ignore[arg-type]
            timezone=self.rng.choice(["UTC", "Asia/Kolkata"]),
        )
        self.append(*control_record(PolicySet(policy=policy)))

    def compute(self) -> None:
        """What an owner does behind a checkpoint; the record comes some time later, if ever."""
        due = backfills(self.state)
        if due:
            self.rounds += 1
            round_ = Round(id=str(self.rounds), org_id="acme", base=self.state.applied, hours=(), extras=True)
            self.coming.append((round_, [missing_cells(one, self.of_ledger(one)) for one in due]))

    def of_ledger(self, one: Backfill) -> pl.DataFrame:
        return as_frame(totals(self.ledger, one.level, one.applied, (one.from_s, one.until_s)))

    def deliver(self) -> None:
        if self.coming:
            round_, cells = self.coming.pop(self.rng.randrange(len(self.coming)))
            for value, headers in repair_records(round_, pl.concat(cells)):
                self.append(value, headers)


@given(st.integers(0, 10**9))
@settings(max_examples=examples(30), deadline=None)
def test_extra_totals_become_those_of_the_ledger(seed: int) -> None:
    line = Line(seed)
    for _ in range(30):
        step = line.rng.choices([line.rows, line.tick, line.policy, line.compute, line.deliver], [8, 3, 2, 3, 2])[0]
        step()
    line.tick()
    while line.coming:
        line.deliver()
    line.compute()
    line.deliver()
    assert not line.state.unsettled
    _check(line)


def _check(line: Line) -> None:
    now_s = max(line.state.clocks.values()) // 1000
    names = line.state.scopes.names
    checked = 0
    for scope, levels in line.state.budgets.extras("acme").items():
        for level in levels:
            current = bucket_at(level, now_s)
            want = totals(line.ledger, level, line.state.applied, (0, 2**40))
            buckets = [current] if level != QUARTER else range(current - 40 * 4 + 1, current + 1)
            for bucket in buckets:
                cells = line.state.levels.get(level, {}).get(bucket)
                got = {} if cells is None else dict(zip(cells.scopes.tolist(), cells.values.tolist(), strict=True))
                expected = want.get((bucket, *names[scope][1:]), [0] * len(MEASURES))
                assert got.get(scope, [0] * 20)[: len(MEASURES)] == expected[: len(got.get(scope, expected))], (
                    names[scope],
                    level,
                    bucket,
                )
                checked += 1
    assert checked or not line.state.budgets.extras("acme")
