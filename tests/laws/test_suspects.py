"""Laws of the rules about identity: the cut into batches and checkpoints that are written half change nothing."""

import random
from collections.abc import Iterator
from typing import Any

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import watch_rows
from tests.effort import examples
from tests.laws.test_fold import Record, _maybe, remember_like_the_log, store_cell
from tests.suspects import a_log, profiles_of
from tollmeter.schemas.progress import Progress
from tollmeter.streams.rules.anomalies.words import KINDS
from tollmeter.streams.rules.windows.profile_rows import PROFILE_SCHEMA, load
from tollmeter.streams.rules.windows.snapshot import CELL_SCHEMA, Snapshot, restore
from tollmeter.streams.rules.windows.state import State
from tollmeter.streams.watch.records import fold_records


def some_log(rng: random.Random) -> list[Record]:
    """Return a log over hours or weeks in which keys do what is suspicious, and what is not."""
    return list(a_log(_steps(rng)))


def _steps(rng: random.Random) -> Iterator[tuple[float, list[dict[str, Any]]]]:
    at_s = float(watch_rows.START)
    for _ in range(rng.randint(3, 14)):
        at_s += rng.choice((1, 30, 600, 3_600, 86_400, 8 * 86_400, 61 * 86_400))
        yield at_s, [_call(rng, at_s) for _ in range(rng.choice((0, 1, 3, 12)))]


def _call(rng: random.Random, at_s: float) -> dict[str, Any]:
    return {
        "org_id": rng.choice(("acme", "umbra")),
        "api_key_id": rng.choice(("k1", "k1", "k2", "k3", "")),
        "client_ip": f"10.0.0.{rng.randint(0, 9)}",
        "status": rng.choice(("OK", "ERROR")),
        "prompt_hash": rng.choice(("", "5a" * 8, "é", f"{rng.getrandbits(64):016x}")),
        "cost_nano": rng.randint(0, 10**10),
        "received_s": at_s + rng.choice((0, 0, 1, 700)),
    }


def a_state() -> State:
    return State(0, watch_rows.LOW)


@given(st.integers(0, 10**9))
@settings(max_examples=examples(40), deadline=None)
def test_the_cut_into_batches_changes_nothing(seed: int) -> None:
    rng = random.Random(seed)
    records = some_log(rng)
    whole, cut = a_state(), a_state()
    expected = fold_records(whole, records)
    found, position = [], 0
    while position < len(records):
        size = rng.randint(1, 4)
        found += fold_records(cut, records[position : position + size])
        position += size
    assert [alert.wire() for alert in found] == [alert.wire() for alert in expected]
    assert profiles_of(cut) == profiles_of(whole)


@given(st.integers(0, 10**9))
@settings(max_examples=examples(40), deadline=None)
def test_a_half_written_checkpoint_is_completed_bit_by_bit(seed: int) -> None:
    rng = random.Random(seed)
    records = some_log(rng)
    whole = a_state()
    expected = fold_records(whole, records)
    cells: dict[Any, dict[str, Any]] = {}
    profiles: dict[Any, dict[str, Any]] = {}
    progress: Progress | None = None
    sent: set[bytes] = set()
    for life in range(4):
        state = a_state()
        if progress is not None:
            restore(state, progress, pl.DataFrame(list(cells.values()), schema=CELL_SCHEMA), [])
            load(state, pl.DataFrame(list(profiles.values()), schema=PROFILE_SCHEMA))
            remember_like_the_log(state, records)
        until = len(records) if life == 3 else rng.randint(state.applied + 1, len(records))
        taken: list[Snapshot] = []
        alerts = fold_records(state, records[state.applied + 1 : until], lambda at, taken=taken: _maybe(rng, taken, at))
        sent |= {alert.wire() for alert in alerts if alert.kind in KINDS}
        for snap in taken:
            complete = rng.random() < 0.5
            for row in snap.cells.to_dicts():
                store_cell(cells, row)
            for row in snap.profiles.to_dicts():
                key = row["org_id"], row["scope"], row["name"]
                if (complete or rng.random() < 0.5) and row["stamp"] >= profiles.get(key, row)["stamp"]:
                    profiles[key] = row
            if not complete:
                break
            progress = Progress.read(snap.progress.text())
    assert sent == {alert.wire() for alert in expected if alert.kind in KINDS}
    assert profiles_of(state) == profiles_of(whole)
