"""Logs made anew: small offsets of a new log are folded, whatever marks and stamps the old one left behind."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import polars as pl
import pytest

from tests import watch_rows
from tests.laws.test_fold import Record, rows_record
from tollmeter.schemas.control import Round
from tollmeter.schemas.priced import H_SOURCE_ID
from tollmeter.schemas.progress import LogPosition, Progress
from tollmeter.streams.rules.windows.epochs import missing, open_hours, renew
from tollmeter.streams.rules.windows.repair import REPAIR_SCHEMA, fold_repair
from tollmeter.streams.rules.windows.snapshot import restore, snapshot
from tollmeter.streams.rules.windows.state import State
from tollmeter.streams.watch.records import fold_records, remember

RULES = replace(watch_rows.RULES, sources=1)
HOUR = watch_rows.START // 3_600


def of_source(record: Record, source_id: str) -> Record:
    return record._replace(headers=[*record.headers, (H_SOURCE_ID, source_id.encode())])


def calls(state: State) -> int:
    return sum(int(cells.values[0, 0]) for cells in state.levels["month"].values())


def rows(*numbers: int, first_offset: int = 0) -> list[dict[str, object]]:
    return [watch_rows.row(n, offset=first_offset + at) for at, n in enumerate(numbers)]


def test_a_source_made_anew_is_not_taken_for_a_replay() -> None:
    state = State(0, RULES)
    old = [
        of_source(rows_record(0, rows(1, 2, 3)), "one"),
        of_source(rows_record(1, rows(2, 3, first_offset=1)), "one"),
    ]
    assert fold_records(state, old) == []
    assert (calls(state), state.counters["replays"]) == (3, 2)
    new = [of_source(rows_record(2, rows(4, 5)), "two"), of_source(rows_record(3, rows(3, first_offset=2)), "one")]
    (alert,) = fold_records(state, new)
    assert (alert.kind, alert.facts["topic_id"]) == ("new_epoch", "two")
    assert (calls(state), state.counters["replays"]) == (5, 3)  # a zombie of the old topic is still a replay
    assert set(state.clocks) == {0}
    again = State(0, RULES)
    taken = snapshot(state)
    restore(again, Progress.read(taken.progress.text()), taken.cells, [])
    assert fold_records(again, [of_source(rows_record(4, rows(5, 6, first_offset=1)), "two")]) == []
    assert (calls(again), again.counters["replays"]) == (6, 4)


def test_records_without_an_id_belong_to_the_present_source() -> None:
    state = State(0, RULES)
    fold_records(state, [rows_record(0, rows(1)), of_source(rows_record(1, rows(2, first_offset=1)), "one")])
    fold_records(state, [rows_record(2, rows(3, first_offset=1))])
    assert (calls(state), state.counters["replays"]) == (2, 1)


def test_small_offsets_of_a_renewed_log_are_folded_and_stamps_go_on_rising() -> None:
    state = State(0, RULES)
    fold_records(state, [rows_record(500, rows(1, 2))])
    before = snapshot(state)
    state.seen.first(  # a start reads the new log back before it knows that it is new
        watch_rows.frame(rows(3))["event_time"].cast(pl.Int64).to_numpy(),
        state.scopes.text_codes(pl.Series(["acme"])),
        watch_rows.frame(rows(3))["event_id"],
    )
    renew(state, "another")
    assert state.applied + 1 == state.base
    fold_records(state, [rows_record(state.base, rows(3, first_offset=2))])
    after = snapshot(state)
    assert calls(state) == 3
    assert int(after.cells["stamp"].min()) > int(before.cells["stamp"].max())  # type: ignore[call-overload,arg-type]
    assert LogPosition.of(state.applied).offset == 0
    again = State(0, RULES)
    restore(
        again, Progress.read(after.progress.text()), pl.concat([before.cells, after.cells])[-after.cells.height :], []
    )
    assert (again.base, again.log_id, again.applied) == (state.base, "another", state.applied)


def test_behind_a_gap_the_hours_it_held_wait_for_a_repair() -> None:
    state = State(0, RULES)
    fold_records(state, [rows_record(3, rows(1))])
    missing(state, [("acme", HOUR), ("other", HOUR - 1)])
    assert state.deferred == {("acme", HOUR): 3, ("other", HOUR - 1): 3}
    assert open_hours(state) == [("acme", HOUR)]
    fold_records(state, [rows_record(10, rows(2, first_offset=1))])
    assert calls(state) == 2


@pytest.mark.parametrize(("offset", "real"), [(-1, -1), (7, 7), ((3 << 40) - 1, -1), ((3 << 40) + 7, 7)])
def test_offsets_as_the_broker_knows_them(offset: int, real: int) -> None:
    assert LogPosition.of(offset).offset == real


def test_each_log_has_offsets_of_its_own_even_if_nothing_was_read_of_it() -> None:
    state = State(0, RULES)
    bases = []
    for name in "abc":
        renew(state, name)
        bases.append(state.base)
    assert bases == [1 << 40, 2 << 40, 3 << 40]


def test_a_repair_from_before_the_log_was_made_anew_is_ignored() -> None:
    state = State(0, RULES)
    missing(state, [("acme", HOUR)])
    renew(state, "another")
    nothing = pl.DataFrame(schema=REPAIR_SCHEMA)
    old = Round(id="a", org_id="acme", base=6, hours=(HOUR,), extras=False)
    fold_repair(state, old, nothing, state.base, 0)
    assert set(state.deferred) == {("acme", HOUR)}
    fold_repair(state, old.model_copy(update={"id": "b", "base": state.base}), nothing, state.base + 1, 0)
    assert not state.deferred


def test_hours_of_ids_that_the_log_has_lost_are_repaired() -> None:
    state = State(0, RULES)
    fold_records(state, [rows_record(3, rows(1))])

    async def cut(_partition: int, _since_ms: int, _end: int) -> AsyncIterator[list[Record] | None]:
        yield None

    asyncio.run(remember(cut, state))
    assert state.deferred == {("acme", HOUR): 3}
