"""WATCH's fold against a row-by-row oracle: however the log is cut, resent or resumed, the windows are the same."""

import asyncio
import io
import random
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable
from typing import Any, NamedTuple

import polars as pl
import polars.selectors as cs
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import watch_rows
from tests.effort import examples
from tollmeter.schemas.control import Correction, MemberDelete, MemberSet, PolicyDelete, PolicySet
from tollmeter.schemas.envelope import control_record, correction_headers, tick_record
from tollmeter.schemas.policy import SCOPE_COLUMNS, Limit, Member, Policy
from tollmeter.schemas.priced import VOID
from tollmeter.schemas.progress import Progress
from tollmeter.streams.rules.windows.fold import COLUMNS_READ
from tollmeter.streams.rules.windows.snapshot import CELL_SCHEMA, Snapshot, restore, snapshot
from tollmeter.streams.rules.windows.state import State
from tollmeter.streams.rules.windows.totals import COLUMNS, MEASURES
from tollmeter.streams.watch.records import fold_records, remember

Identity = tuple[int, str, str]
START, HORIZON_S = watch_rows.START, watch_rows.RULES.horizon_s


class Record(NamedTuple):
    offset: int
    timestamp: int
    headers: list[tuple[str, bytes]]
    value: bytes


def rows_record(offset: int, rows: list[dict[str, Any]], *more: str) -> Record:
    """A record of priced rows, with the columns `more`, too."""
    out = io.BytesIO()
    made = watch_rows.frame(rows, (*COLUMNS_READ, "tags", *more))
    if offset % 3 == 0:  # as PRICE writes few rows
        made = made.with_columns(cs.categorical().cast(pl.String))
    elif offset % 3 == 1:  # many rows: the dictionary that all records name
        shared = pl.Categorical(pl.Categories("usage.priced"))
        made = made.with_columns(cs.categorical().cast(pl.String).cast(shared))
    made.write_ipc_stream(out, compression="lz4")
    return Record(offset, 0, [("format", b"1"), ("kind", b"rows")], out.getvalue())


def correction_record(
    offset: int, was: list[dict[str, Any]], now: list[dict[str, Any]], appended_s: float, *more: str
) -> Record:
    """A correction of some rows of one organisation; rows behind the first `len(was)` of `now` come from another."""
    out = io.BytesIO()
    rows = [{"revision": 0, **row} for row in [*was, *now]]
    watch_rows.frame(rows, (*COLUMNS_READ, "tags", "revision", *more)).write_ipc_stream(out, compression="lz4")
    body = Correction(id=str(offset), org_id=now[0]["org_id"], was=len(was))
    return Record(offset, round(appended_s * 1000), correction_headers(body, len(rows)), out.getvalue())


class Ledger(dict[Identity, dict[str, Any]]):
    """What a ledger makes of a log: of each identity the highest revision, and of those the first."""

    @classmethod
    def of(cls, said: list[tuple[str, Any]]) -> "Ledger":
        made = cls()
        for kind, what in said:
            made.store(what if kind == "rows" else what[1] if kind == "correction" else [])
        return made

    def store(self, rows: Iterable[dict[str, Any]]) -> None:
        for row in rows:
            identity = identity_of(row)
            if identity not in self or row.get("revision", 0) > self[identity].get("revision", 0):
                self[identity] = row


def identity_of(row: dict[str, Any]) -> Identity:
    return row["event_time"], row["org_id"], row["event_id"]


def a_log(seed: int, *, doubled: bool = False) -> tuple[list[Record], list[tuple[str, Any]]]:
    """A random log of one partition and what it says: rows (resent, replayed, late, early), ticks, policies.

    With `doubled`, ids come again at other times, and nobody voids them.
    """
    rng = random.Random(seed)
    clock = [float(START), float(START)]
    sent: list[list[dict[str, Any]]] = [[], []]
    records: list[Record] = []
    said: list[tuple[str, Any]] = []
    ledger = Ledger()
    number = 0
    for offset in range(rng.randint(3, 14)):
        kind = rng.choices(["rows", "tick", "control", "correction"], [8, 3, 2, 3])[0]
        if kind == "correction" and ledger:
            earlier = [what for kind, what in said if kind == "correction"]
            again = earlier and rng.random() < 0.4  # whoever sends it does not know that it has arrived
            was, now = rng.choice(earlier) if again else a_correction(rng, ledger)
            records.append(correction_record(offset, was, now, max(clock)))
            said.append((kind, (was, now)))
            if rng.random() < 0.8:  # else the next one is made without knowing of this one
                ledger.store(now)
        elif kind in ("rows", "correction"):
            rows = []
            for source in (0, 1):
                if sent[source] and rng.random() < 0.2:  # PRICE was killed: part of its last batch comes again
                    rows += sent[source][-rng.randint(1, 3) :]
                for _ in range(rng.randint(0, 6)):
                    clock[source] += rng.choice([0, 1, 30, 400])
                    rows.append(_a_row(rng, number, clock[source], source, len(sent[source]), sent))
                    if doubled and sent[source] and rng.random() < 0.15:
                        rows[-1]["event_id"] = rng.choice(sent[source])["event_id"]
                    sent[source].append(rows[-1])
                    number += 1
            rows = sorted(rows, key=lambda row: (row["src_partition"], row["src_offset"]))
            records.append(rows_record(offset, rows))
            said.append(("rows", rows))
            ledger.store(rows)
        elif kind == "tick":
            clocks = {source: round(clock[source] * 1000) for source in (0, 1) if rng.random() < 0.8}
            records.append(Record(offset, 0, tick_record(clocks)[1], tick_record(clocks)[0]))
            said.append(("tick", clocks))
        else:
            body = _a_control(rng)
            value, headers = control_record(body)
            records.append(Record(offset, round(max(clock) * 1000), headers, value))
            said.append((kind, body))
    return records, said


def a_correction(rng: random.Random, ledger: Ledger) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Some rows of one organisation and what replaces them: other amounts, another user, nothing; or one that moves."""
    org = rng.choice(sorted({row["org_id"] for row in ledger.values()}))
    mine = [row for _, row in sorted(ledger.items()) if row["org_id"] == org]
    was = rng.sample(mine, min(len(mine), rng.randint(1, 3)))
    raised = [{**row, "revision": row.get("revision", 0) + 1} for row in was]
    if rng.random() < 0.2:
        moved = {**raised[0], "org_id": "b" if org == "a" else "a"}
        if ledger.get(identity_of(moved), {}).get("revision", 0) == 0:  # nobody else has moved it there
            return [], [moved]
    changes: list[dict[str, Any]] = [
        {"cost_nano": 77, "input_tokens": 3},
        {"user_id": "u3"},
        {"status": "OK", "cost_nano": 9_000_000_000},
        {"status": VOID, "cost_nano": 0, "at_risk_nano": None, "input_tokens": 0, "output_tokens": 0},
    ]
    return was, [{**row, **rng.choice(changes)} for row in raised]


def _a_control(rng: random.Random) -> Any:
    """A policy or a member, set or deleted: of each kind of scope, period, zone and unit that folds differently."""
    if rng.random() < 0.3:
        member = Member(
            org_id="a", name=rng.choice(["u1", "u2"]), groups=tuple(rng.sample(["dev", "ops"], rng.randint(0, 2)))
        )
        return MemberSet(member=member) if rng.random() < 0.7 else MemberDelete(member_id=member.member_id)
    scope, name, applies = rng.choice(
        [
            ("user", "u1", "pool"),
            ("org", "", "each_member"),
            ("group", "dev", "each_member"),
            ("org", "", "pool"),
            ("tag", "team=blue", "pool"),
            ("api_key", "k1", "pool"),
        ]
    )
    period, measure = rng.choice(["week", "rolling", "month"]), rng.choice(["money", "tokens", "requests"])
    amount = rng.randint(1, 20)
    policy = Policy(
        org_id="a",
        scope=scope,
        name=name,
        applies=applies,
        timezone=rng.choice(["UTC", "Asia/Kolkata"]),
        daily_limit_micro=rng.choice([None, amount]),
        limits=(Limit(period=period, measure=measure, amount=amount, hours=5 if period == "rolling" else None),),
        alert_remaining_micro=rng.choice([None, 3]),
    )  # type: ignore[arg-type]
    return PolicySet(policy=policy) if rng.random() < 0.8 else PolicyDelete(policy_id=policy.policy_id)


def _a_row(
    rng: random.Random, number: int, clock: float, source: int, offset: int, sent: list[list[dict[str, Any]]]
) -> dict[str, Any]:
    everything = sent[0] + sent[1]
    if everything and rng.random() < 0.15:  # the producer sends again: same id and time, new place in the log
        old = rng.choice(everything)
        org = rng.choice(["a", "b"]) if rng.random() < 0.3 else old["org_id"]
        place = {"src_partition": source, "src_offset": offset, "received_at": round(clock * 1000)}
        return {**old, **place, "org_id": org}
    at = clock - rng.choice(
        [0, 0, 0, 5, 200, HORIZON_S - 1, HORIZON_S + 500, 86_400 * 3, 86_400 * 40, -30, -86_400 * 30]
    )
    row: dict[str, Any] = watch_rows.row(
        number,
        at,
        source=source,
        offset=offset,
        received_s=clock,
        org_id=rng.choice("ab"),
        user_id=rng.choice(["u1", "u2", ""]),
        api_key_id=rng.choice(["k1", "k2"]),
        cost_nano=rng.choice([None, 0, 100, 5_000, 4_000_000_000]),
        at_risk_nano=rng.choice([None, 70]),
        status=rng.choice(["OK", "ERROR", "BLOCKED"]),
        billing_scope=rng.choice(["ORG", "USER", "UNKNOWN"]),
        price_status=rng.choice(["PRICED", "UNKNOWN_MODEL"]),
        tags=rng.choice([None, [{"key": "team", "value": "blue"}], [{"key": "team", "value": "red"}]]),
    )
    return row


class Oracle:
    """Totals by scope and minute and the counters, one row at a time, from the rules as they are written down."""

    def __init__(self) -> None:
        self.high: dict[int, int] = defaultdict(lambda: -1)
        self.clocks: dict[int, int] = {}
        self.remember_from = 0
        self.seen: set[tuple[Any, ...]] = set()
        self.totals: dict[tuple[str, str, str, int], list[int]] = defaultdict(lambda: [0] * len(MEASURES))
        self.times: dict[tuple[str, str], set[int]] = defaultdict(set)
        self.doubled: set[tuple[Any, ...]] = set()
        self.counts = dict.fromkeys(("accepted", "resends", "late_deferred", "replays", "doubled"), 0)

    def read(self, said: list[tuple[str, Any]]) -> None:
        for kind, what in said:
            if kind == "rows":
                for row in what:
                    self._row(row)
            if kind == "correction":
                self._correction(*what)
            if kind == "tick":
                for source, now in what.items():
                    self.clocks[source] = max(now, self.clocks.get(source, 0))
                if len(self.clocks) == 2:
                    self.remember_from = max(self.remember_from, min(self.clocks.values()) * 1000 - HORIZON_S * 10**6)

    def _correction(self, was: list[dict[str, Any]], now: list[dict[str, Any]]) -> None:
        for number, row in enumerate(now):
            if identity_of(row) in self.doubled:  # nobody counted it, and it will be void
                continue
            identity, charged = identity_of(row), min(row["event_time"], row["received_at"] * 1000)
            sealed = self.clocks.get(row["src_partition"], 0) * 1000 - HORIZON_S * 10**6
            if row["event_time"] < self.remember_from or charged < sealed:
                continue
            if (*identity, row["revision"]) in self.seen:
                continue
            self.seen.add((*identity, row["revision"]))
            if number >= len(was):
                if identity in self.seen:
                    continue
                self.seen.add(identity)
                self.times[row["org_id"], row["event_id"]].add(row["event_time"])
            else:
                add_row(was[number], charged // 60_000_000, self.totals, -1)
            add_row(row, charged // 60_000_000, self.totals)

    def _row(self, row: dict[str, Any]) -> None:
        source = row["src_partition"]
        self.clocks[source] = max(row["received_at"], self.clocks.get(source, 0))
        if row["src_offset"] <= self.high[source]:
            self.counts["replays"] += 1
            return
        self.high[source] = row["src_offset"]
        self.counts["accepted"] += 1
        identity = identity_of(row)
        known = row["event_time"] >= self.remember_from
        if known and identity in self.seen:
            self.counts["resends"] += 1
            return
        if known:
            self.seen.add(identity)
            times = self.times[row["org_id"], row["event_id"]]
            others = {at for at in times if at >= self.remember_from}
            times.add(row["event_time"])
            if others and row["event_time"] <= (row["received_at"] + 600_000) * 1_000:
                self.doubled.add(identity)
                self.counts["doubled"] += 1
                return
        charged = min(row["event_time"], row["received_at"] * 1000)
        if not known or charged < self.clocks[source] * 1000 - HORIZON_S * 10**6:
            self.counts["late_deferred"] += 1
        else:
            add_row(row, charged // 60_000_000, self.totals)


def add_row(row: Any, minute: int, totals: Any, sign: int = 1) -> None:
    """Add a row to the totals of its scopes in a minute, or take it out of them; a void one counts nowhere."""
    if row["status"] == VOID:
        return
    byok = row["billing_scope"] == "USER"
    cost, risk = row["cost_nano"] or 0, row["at_risk_nano"] or 0
    values = [
        1,
        row["status"] == "ERROR",
        row["status"] == "BLOCKED",
        row["price_status"] == "UNKNOWN_MODEL",
        row["input_tokens"],
        row["cache_read_tokens"],
        row["output_tokens"],
        0 if byok else cost,
        cost if byok else 0,
        0 if byok else risk,
        0 if byok else (row["cost_eur_nano"] or 0),
        0,
        byok and row["status"] != "BLOCKED",
        row["input_tokens"] + row["output_tokens"] if byok else 0,
    ]
    for kind, column in SCOPE_COLUMNS.items():
        name = "" if kind == "org" else row[column]
        if kind == "org" or name:
            cell = totals[row["org_id"], kind, name, minute]
            for position, value in enumerate(values):
                cell[position] += sign * int(value)


def cells_of(state: State) -> dict[tuple[str, str, str, str, int], tuple[int, ...]]:
    """All cells in memory that hold anything, whoever wrote them when."""
    found = {}
    for level, buckets in state.levels.items():
        for bucket, cells in buckets.items():
            for number, values in zip(cells.scopes.tolist(), cells.values.tolist(), strict=True):
                if any(values):
                    found[(level, *state.scopes.names[number], bucket)] = tuple(values)
    return found


@given(st.integers(0, 10**9))
@settings(max_examples=examples(80), deadline=None)
def test_windows_equal_the_sum_of_distinct_rows(seed: int) -> None:
    records, said = a_log(seed, doubled=True)
    state: State = watch_rows.new_state()
    fold_records(state, records)
    oracle = Oracle()
    oracle.read(said)
    found = {key[1:]: values for key, values in cells_of(state).items() if key[0] == "minute" and key[2] != "tag"}
    # sealed minutes are dropped from memory when a snapshot holds them: here none was taken
    totals = {key: tuple(values) for key, values in oracle.totals.items() if any(values)}
    assert {key: values[: len(MEASURES)] for key, values in found.items()} == totals
    months: dict[tuple[str, str, str], list[int]] = defaultdict(lambda: [0] * len(MEASURES))
    for key, values in totals.items():
        months[key[:3]] = [a + b for a, b in zip(months[key[:3]], values, strict=True)]
    assert state.counters == oracle.counts
    by_month: dict[tuple[str, str, str], list[int]] = defaultdict(lambda: [0] * len(MEASURES))
    for (level, org, kind, name, _bucket), values in cells_of(state).items():
        if level == "month" and kind != "tag":
            month = (org, kind, name)
            by_month[month] = [a + b for a, b in zip(by_month[month], values, strict=False)]
    assert {key: sums for key, sums in by_month.items() if any(sums)} == {
        key: sums for key, sums in months.items() if any(sums)
    }


@given(st.integers(0, 10**9), st.randoms(use_true_random=False))
@settings(max_examples=examples(60), deadline=None)
def test_the_cut_into_passes_changes_nothing(seed: int, rng: random.Random) -> None:
    records, _ = a_log(seed, doubled=True)
    whole: State = watch_rows.new_state()
    alerts = fold_records(whole, records)
    cut: State = watch_rows.new_state()
    pieces = []
    position = 0
    while position < len(records):
        size = rng.randint(1, 3)
        pieces += fold_records(cut, records[position : position + size])
        position += size
    assert cells_of(cut) == cells_of(whole)
    assert sorted(alert.wire() for alert in pieces) == sorted(alert.wire() for alert in alerts)
    assert cut.counters == whole.counters
    assert cut.high == whole.high


@given(st.integers(0, 10**9), st.randoms(use_true_random=False))
@settings(max_examples=examples(30), deadline=None)
def test_a_half_written_checkpoint_is_completed_not_counted_twice(seed: int, rng: random.Random) -> None:
    records, _ = a_log(seed, doubled=True)
    whole: State = watch_rows.new_state()
    expected = fold_records(whole, records)
    stored: dict[tuple[Any, ...], dict[str, Any]] = {}
    progress = None
    policies: dict[str, Policy | Member] = {}
    sent: set[bytes] = set()
    state: State = watch_rows.new_state()
    for _ in range(4):  # lives of a worker
        state = watch_rows.new_state()
        if progress is not None:
            cells = pl.DataFrame(list(stored.values()), schema=CELL_SCHEMA)
            restore(state, progress, cells, list(policies.values()))
            remember_like_the_log(state, records)
        taken: list[Snapshot] = []
        until = rng.randint(state.applied + 1, len(records))
        alerts = fold_records(state, records[state.applied + 1 : until], lambda at, taken=taken: _maybe(rng, taken, at))
        sent |= {alert.wire() for alert in alerts}
        for snap in taken:
            rows = snap.cells.to_dicts()
            complete = rng.random() < 0.5
            for row in rows if complete else rng.sample(rows, rng.randint(0, len(rows))):
                store_cell(stored, row)
            if not complete:
                break  # killed between two rows of the checkpoint
            for policy_id, policy in snap.policies:
                if policy is None:
                    policies.pop(policy_id, None)
                else:
                    policies[policy_id] = policy
            progress = Progress.read(snap.progress.text())
    state = watch_rows.new_state()
    if progress is not None:
        restore(state, progress, pl.DataFrame(list(stored.values()), schema=CELL_SCHEMA), list(policies.values()))
        remember_like_the_log(state, records)
    sent |= {alert.wire() for alert in fold_records(state, records[state.applied + 1 :])}
    for row in snapshot(state).cells.to_dicts():
        store_cell(stored, row)
    assert _values(stored.values()) == _values(snapshot(whole).cells.to_dicts())
    assert state.counters == whole.counters
    assert sent == {alert.wire() for alert in expected}


def _maybe(rng: random.Random, taken: list[Snapshot], state: State) -> None:
    if rng.random() < 0.5:
        taken.append(snapshot(state))


def _values(rows: Iterable[dict[str, Any]]) -> dict[tuple[Any, ...], tuple[int, ...]]:
    return {
        tuple(row[name] for name in ("level", "bucket", "org_id", "scope", "name")): tuple(row[n] for n in COLUMNS)
        for row in rows
        if any(row[name] for name in COLUMNS)
    }


def store_cell(stored: dict[tuple[Any, ...], dict[str, Any]], row: dict[str, Any]) -> None:
    key = (row["level"], row["bucket"], row["org_id"], row["scope"], row["name"])
    if key not in stored or row["stamp"] >= stored[key]["stamp"]:
        stored[key] = row


def remember_like_the_log(state: State, records: list[Record]) -> None:
    async def read_back(_partition: int, _since_ms: int, end: int) -> AsyncIterator[list[Record]]:
        yield records[:end]

    asyncio.run(remember(read_back, state))
