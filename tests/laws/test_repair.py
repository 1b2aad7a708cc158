"""After repairs every window equals the ledger, late rows included, whoever else repairs and whatever is killed."""

import random
from collections import defaultdict
from typing import Any

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.effort import examples
from tests.laws import test_fold as laws
from tollmeter.schemas.control import Round
from tollmeter.schemas.envelope import tick_record
from tollmeter.schemas.progress import Progress
from tollmeter.streams.rules.windows.repair import REPAIR_SCHEMA, cells_of_round, due, sealed
from tollmeter.streams.rules.windows.snapshot import CELL_SCHEMA, restore, snapshot
from tollmeter.streams.rules.windows.state import State
from tollmeter.streams.rules.windows.totals import MEASURES, bucket_at, bucket_of, bucket_start_s
from tollmeter.streams.watch.records import fold_records
from tollmeter.streams.watch.repairs import repair_records

Key = tuple[str, str, str, int]


def ledger_of(said: list[tuple[str, Any]]) -> dict[Key, list[int]]:
    """Minute totals of all distinct rows as corrected last, late or not: what SQL adds up."""
    totals: dict[Key, list[int]] = defaultdict(lambda: [0] * len(MEASURES))
    for row in laws.Ledger.of(said).values():
        laws.add_row(row, min(row["event_time"], row["received_at"] * 1000) // 60_000_000, totals)
    return totals


def at_level(totals: dict[Key, list[int]], level: str) -> dict[Key, list[int]]:
    summed: dict[Key, list[int]] = defaultdict(lambda: [0] * len(MEASURES))
    for (org, kind, name, minute), values in totals.items():
        bucket = int(bucket_of(level, pl.Series([minute]).to_numpy())[0])
        cell = summed[org, kind, name, bucket]
        summed[org, kind, name, bucket] = [a + b for a, b in zip(cell, values, strict=True)]
    return summed


def frame_of(totals: dict[Key, list[int]], org: str, buckets: set[int], level: str) -> pl.DataFrame:
    rows = [
        {"level": level, "bucket": key[3], "scope": key[1], "name": key[2], **dict(zip(MEASURES, values, strict=True))}
        for key, values in at_level(totals, level).items()
        if key[0] == org and key[3] in buckets
    ]
    schema = {name: kind for name, kind in REPAIR_SCHEMA.items() if name != "absolute"}
    return pl.DataFrame(rows, schema=schema)


class Store:
    """ClickHouse as far as it matters here: per cell the highest stamp wins."""

    def __init__(self) -> None:
        self.cells: dict[tuple[Any, ...], dict[str, Any]] = {}
        self.progress = Progress(applied=-1)

    def save(self, state: State) -> None:
        taken = snapshot(state)
        for row in taken.cells.to_dicts():
            laws.store_cell(self.cells, row)
        self.progress = Progress.read(taken.progress.text())

    def load(self) -> State:
        state: State = laws.watch_rows.new_state()
        restore(state, self.progress, pl.DataFrame(list(self.cells.values()), schema=CELL_SCHEMA), [])
        return state

    def totals(self, level: str) -> dict[Key, list[int]]:
        found = {}
        for row in self.cells.values():
            if row["level"] == level and row["scope"] != "tag" and any(row[name] for name in MEASURES):
                bucket = bucket_at(level, int(row["bucket"].timestamp()))
                found[row["org_id"], row["scope"], row["name"], bucket] = [row[name] for name in MEASURES]
        return found


def rounds_of(store: Store, state: State, totals: dict[Key, list[int]], name: str) -> list[tuple[Round, pl.DataFrame]]:
    watermark_s, horizon_s = min(state.clocks.values()) // 1000, state.rules.horizon_s
    made = []
    for org, hours in due(state.deferred, state.quiet_hours, watermark_s, horizon_s).items():
        minutes = {hour * 60 + minute for hour in hours for minute in range(60)}
        closed: dict[str, set[int]] = {"minute": minutes, "hour": set(hours)}
        for level in ("day", "month"):
            buckets = {bucket_at(level, bucket_start_s("hour", hour)) for hour in hours}
            closed[level] = {bucket for bucket in buckets if sealed(level, bucket, watermark_s, horizon_s)}
        was = [
            {"level": level, "bucket": key[3], "scope": key[1], "name": key[2]}
            | dict(zip(MEASURES, values, strict=True))
            for level, buckets in closed.items()
            for key, values in store.totals(level).items()
            if key[0] == org and key[3] in buckets
        ]
        larger = pl.concat([frame_of(totals, org, closed[level], level) for level in ("day", "month")])
        schema = {name: kind for name, kind in REPAIR_SCHEMA.items() if name != "absolute"}
        cells = cells_of_round(
            hours,
            frame_of(totals, org, minutes, "minute").drop("level"),
            pl.DataFrame(was, schema=schema),
            larger,
            closed["day"],
            closed["month"],
        )
        made.append((Round(id=f"{name}-{org}", org_id=org, base=state.applied, hours=hours), cells))
    return made


@given(st.integers(0, 10**9), st.randoms(use_true_random=False))
@settings(max_examples=examples(10), deadline=None)
def test_repaired_windows_equal_the_ledger(seed: int, rng: random.Random) -> None:
    records, said = laws.a_log(seed)
    totals = ledger_of(said)
    end_ms = (laws.START + 3 * 3_600 + 20_000) * 1000
    offset = len(records)

    def append(headers: list[tuple[str, bytes]], value: bytes) -> None:
        nonlocal offset
        records.append(laws.Record(offset, end_ms, headers, value))
        offset += 1

    tick, headers = tick_record({0: end_ms, 1: end_ms})
    append(headers, tick)  # everything is sealed
    store, state = Store(), laws.watch_rows.new_state()
    fold_records(state, records)
    store.save(state)
    for attempt in range(6):  # each round repairs at most a day's worth of hours
        if attempt < 3 and (ledger := laws.Ledger.of(said)):  # the ledger is ahead of the checkpoint
            was, now = laws.a_correction(rng, ledger)
            said.append(("correction", (was, now)))
            records.append(laws.correction_record(offset, was, now, end_ms / 1000))
            offset += 1
            totals = ledger_of(said)
        ours, theirs = (rounds_of(store, state, totals, f"{who}{offset}") for who in ("ours", "theirs"))
        for round_, cells in rng.sample([*ours, *theirs], len(ours) + len(theirs)):  # two owners send the same
            made = repair_records(round_, cells, 15)
            dies = attempt < 2 and rng.random() < 0.5  # between two records of its round
            for value, headers in made[: rng.randint(0, len(made))] if dies else made:
                append(headers, value)
        append(tick_record({0: end_ms, 1: end_ms})[1], tick)
        start = state.applied + 1
        if rng.random() < 0.5:
            fold_records(state, records[start:], store.save)
        state = store.load()
        fold_records(state, records[state.applied + 1 :])
        store.save(state)
    assert not state.deferred
    for level in ("minute", "hour", "day", "month"):
        expected = {key: values for key, values in at_level(totals, level).items() if any(values)}
        assert store.totals(level) == expected, level
