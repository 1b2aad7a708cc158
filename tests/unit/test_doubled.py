"""An id that came first at another time never enters a window, and the same correction takes it out of the ledger."""

from typing import Any

import numpy as np
import polars as pl

from tests import watch_rows
from tests.exchange import dated
from tests.laws.test_fold import Record, correction_record, rows_record
from tests.unit.test_amend import priced
from tests.unit.test_corrections import EMPTY, revised, tick, total
from tests.usage_rows import fields
from tollmeter.schemas.control import Correction
from tollmeter.schemas.priced import DOUBLED_REVISION, H_CORRECTION, VOID
from tollmeter.streams.price.book.book import load
from tollmeter.streams.rules.records.decode import PricedBlock, read
from tollmeter.streams.rules.windows.dedupe import SLICE_US, Dedupe
from tollmeter.streams.rules.windows.doubled import void_records
from tollmeter.streams.rules.windows.epochs import renew
from tollmeter.streams.rules.windows.snapshot import restore, snapshot
from tollmeter.streams.rules.windows.state import State
from tollmeter.streams.watch.records import fold_log, fold_records

START = watch_rows.START
ONE = "00000000-0000-4000-8000-000000000001"


def row(at_s: float, offset: int, **changed: Any) -> dict[str, Any]:
    return watch_rows.row(1, at_s, offset=offset, cost_nano=1_000, **changed)


def void(offset: int, of: dict[str, Any]) -> Record:
    """The record by which WATCH takes a row out of the ledger."""
    made = correction_record(offset, [], [{**of, **EMPTY, "revision": DOUBLED_REVISION}], START)
    told = Correction(id="doubled", org_id="acme", was=0, doubled=True).model_dump_json().encode()
    return made._replace(headers=[(name, told if name == H_CORRECTION else text) for name, text in made.headers])


def doubled() -> tuple[State, dict[str, Any]]:
    """A state that has seen an id at two times."""
    state, second = watch_rows.new_state(), row(START + 60, 2)
    fold_records(state, [rows_record(0, [row(START, 1)]), rows_record(1, [second])])
    return state, second


def test_first_in_the_log_counts_and_the_other_is_named_once() -> None:
    state, second = doubled()
    assert total(state, "user", "u") == (1, 1_000)
    assert state.to_void == [(second["event_time"], "acme", ONE)]
    assert (state.counters["doubled"], state.counters["resends"]) == (1, 0)
    fold_records(state, [rows_record(2, [row(START + 60, 3), row(START, 4)])])
    assert (set(state.to_void), state.counters["resends"]) == ({(second["event_time"], "acme", ONE)}, 2)


def test_what_lost_is_voided_again_when_it_is_sent_again_as_its_void_may_have_been_refused() -> None:
    state, second = doubled()
    for offset, known in ((2, None), (4, void(3, second))):
        state.to_void.clear()
        fold_records(state, [known] if known else [])
        fold_records(state, [rows_record(offset, [row(START, 10 + offset)])])
        assert state.to_void == []  # the first time counts, however often it comes
        fold_records(state, [rows_record(offset + 1, [{**row(START + 60, 20 + offset), "cost_nano": 1}])])
        assert state.to_void == [(second["event_time"], "acme", ONE)]
    assert total(state, "user", "u") == (1, 1_000)


def test_what_is_void_takes_no_other_time_out() -> None:
    """A restart has forgotten what came first, far ahead of its arrival: sent again it must not lose to the loser."""
    state, second = watch_rows.new_state(), row(START + 60, 2)
    fold_records(state, [rows_record(0, [second]), void(1, second), rows_record(2, [row(START + 90, 3)])])
    assert state.to_void == []
    assert total(state, "user", "u") == (2, 2_000)  # the void one was counted here: its hour is repaired
    fold_records(state, [rows_record(3, [row(START + 91, 4)])])
    assert [identity[0] for identity in state.to_void] == [(START + 91) * 1_000_000]


def test_an_other_one_of_the_same_id_is_no_reason_to_void_what_an_operator_took_out() -> None:
    state, other = watch_rows.new_state(), row(START, 1, event_id=ONE[:-1] + "2")
    fold_records(state, [rows_record(0, [other, row(START, 2)])])
    fold_records(state, [correction_record(1, [other], [{**other, **EMPTY, "revision": 1}], START)])
    fold_records(state, [rows_record(2, [other | {"src_offset": 3}, row(START, 4)])])
    assert state.to_void == []


def renewed(*rows: dict[str, Any], appended_s: float) -> State:
    """A state behind a log that was made anew, without a word of what it had read of the old one."""
    state = watch_rows.new_state()
    renew(state, "another")
    for at, one in enumerate(rows):
        made = rows_record(0, [one])._replace(offset=state.base + at, timestamp=round(appended_s * 1000))
        fold_log(state, [made])
    return state


def test_nobody_voids_the_first_time_because_a_log_made_anew_tells_the_other_one_first() -> None:
    """Whoever read the old log may have voided the second one, and have ended without a checkpoint."""
    state = renewed(row(START + 60, 1), row(START, 2), appended_s=START + 61)
    assert (state.to_void, total(state, "user", "u")) == ([], (2, 2_000))
    again = watch_rows.new_state()
    saved = snapshot(state)
    restore(again, saved.progress, saved.cells, [])
    assert again.doubles_from_us == state.doubles_from_us == (START + 61 + 20 * 60) * 1_000_000
    later = [row(START + 61 + 20 * 60 + more, 3 + more) for more in (0, 1)]
    fold_log(state, [rows_record(0, later)._replace(offset=state.applied + 1)])
    assert state.to_void == []  # the id is known at a time of which nobody is sure


def test_behind_a_loss_ids_that_cannot_have_been_in_it_are_voided_as_ever() -> None:
    far = START + 61 + 20 * 60
    state = renewed(row(far + 5, 1), row(far, 2), appended_s=START + 61)
    assert [identity[0] for identity in state.to_void] == [far * 1_000_000]


def test_behind_a_gap_nobody_knows_which_time_came_first() -> None:
    state = watch_rows.new_state()
    state.lost_to = 4
    before = rows_record(3, [row(START - 9, 1, event_id=ONE[:-1] + "2"), row(START - 8, 2, event_id=ONE[:-1] + "2")])
    fold_log(state, [before, *(rows_record(at, [row(START + at, at)]) for at in (5, 6))])
    assert [identity[0] for identity in state.to_void] == [(START - 8) * 1_000_000]
    assert state.doubles_from_us == (START - 8 + 10 * 60) * 1_000_000


def test_a_void_of_what_was_counted_here_has_its_hour_repaired() -> None:
    state = watch_rows.new_state()
    fold_records(state, [rows_record(0, [one := row(START, 1)])])
    fold_records(state, [void(1, one)])
    assert list(state.deferred) == [("acme", START // 3_600)]
    state.deferred.clear()
    fold_records(state, [void(2, one)])
    assert state.deferred == {}  # told twice


def test_an_earlier_time_that_comes_second_loses_and_other_organisations_have_ids_of_their_own() -> None:
    state = watch_rows.new_state()
    rows = [row(START, 1), row(START - 1, 2), row(START - 2, 3, org_id="other")]
    fold_records(state, [rows_record(0, rows)])
    assert [identity[0] for identity in state.to_void] == [rows[1]["event_time"]]
    assert total(state, "user", "u", "other") == (1, 1_000)


def test_what_an_operator_makes_of_a_row_that_nobody_counted_changes_nothing_until_it_is_void() -> None:
    state, second = doubled()
    fold_records(state, [correction_record(2, [second], [revised(second, user_id="v")], START)])
    assert (total(state, "user", "u"), total(state, "user", "v")) == ((1, 1_000), (0, 0))
    gone = {**second, **EMPTY, "revision": DOUBLED_REVISION}
    fold_records(state, [void(3, second)])
    assert state.doubled == set()
    fold_records(
        state, [correction_record(4, [second], [revised(second, user_id="w")], START)]
    )  # asked before the void
    assert total(state, "user", "w") == (0, 0)
    back = {**second, "revision": DOUBLED_REVISION + 1}
    fold_records(state, [correction_record(5, [gone], [back], START)])
    assert total(state, "user", "u") == (2, 2_000)


def test_a_restart_knows_what_is_not_void_yet() -> None:
    state, second = doubled()
    saved = snapshot(state)
    again = watch_rows.new_state()
    restore(again, saved.progress, saved.cells, [])
    assert again.doubled == {(second["event_time"], "acme", ONE)}
    fold_records(again, [correction_record(2, [second], [revised(second, user_id="v")], START)])
    assert (total(again, "user", "u"), total(again, "user", "v")) == ((1, 1_000), (0, 0))


def test_hours_that_are_sealed_when_a_row_is_voided_are_repaired_from_the_ledger() -> None:
    state, second = doubled()
    fold_records(state, [tick(2, START + 3 * 3_600), void(3, second)])
    assert list(state.deferred) == [("acme", (START + 60) // 3_600)]


def test_memory_knows_ids_by_every_time_until_that_is_forgotten() -> None:
    seen, org = Dedupe(cap=100), np.zeros(1, dtype=np.int64)
    ids = pl.Series([ONE])

    def look(at_us: int, since_us: int = 0, sure_us: int = 0) -> tuple[bool, bool]:
        known = seen.look(np.array([at_us]), org, ids, since_us, sure_us)
        assert not (known.again & known.first).any()
        return bool(known.first[0]), bool(known.doubled[0])

    assert look(5) == (True, False)
    assert look(SLICE_US) == (True, True)
    assert (look(5), look(SLICE_US)) == ((False, False), (False, False))
    assert seen.forget_before(SLICE_US) == SLICE_US
    assert (look(SLICE_US), look(SLICE_US + 1)) == ((False, False), (True, True))
    assert look(SLICE_US + 2, 0, SLICE_US + 1) == (True, False)  # of the others nobody knows which came first
    assert look(SLICE_US + 3, SLICE_US + 3) == (True, False)  # of the others a restart would know nothing
    assert seen.size == 4
    times = np.array([5, SLICE_US, SLICE_US + 1, SLICE_US + 9])
    assert seen.has(times, org.repeat(4), pl.Series([ONE] * 4)).tolist() == [False, True, True, False]
    assert seen.forget_before(2 * SLICE_US) == 2 * SLICE_US
    assert not seen.has(times, org.repeat(4), pl.Series([ONE] * 4)).any()
    assert (seen.size, look(5)) == (0, (True, False))


def test_void_records_are_the_same_however_the_rows_come() -> None:
    events = [fields(n, org_id=f"o{n % 2}", extra_units={"web_searches": 2.0}) for n in range(6)]
    rows = priced(load(dated()), *events)
    named = [(event["occurred_at"], event["org_id"], event["event_id"]) for event in events[:4]]
    made = void_records(named, [rows])
    assert made == void_records(list(reversed(named)), [rows[:2], rows[2:], rows])
    found = pl.concat([read(PricedBlock(0, at, value)) for at, (value, _) in enumerate(made)])
    assert [dict(headers)["rows"] for _, headers in made] == [b"2", b"2"]
    assert set(found["event_id"]) == {event_id for _, _, event_id in named}
    assert found["revision"].to_list() == [DOUBLED_REVISION] * 4
    assert (found["status"].cast(pl.String) == VOID).all()
    assert found.select(pl.col("cost_nano", "cost_output_nano", "cost_eur_nano").sum()).row(0) == (0, 0, 0)
    assert found["extra_units"].list.len().sum() == 0
