"""WATCH's checkpoints on the real engine: what is loaded is what was saved last, and hours behind a gap are named."""

from collections.abc import Iterator
from dataclasses import replace

import pytest

from tests import watch_rows
from tests.laws.test_fold import cells_of, correction_record, rows_record
from tests.suspects import profiles_of
from tollmeter.schemas.control import PolicySet
from tollmeter.schemas.envelope import control_record, tick_record
from tollmeter.schemas.policy import Policy
from tollmeter.schemas.priced import VOID
from tollmeter.settings import Settings
from tollmeter.sinks.clickhouse.client import ClickHouse, connect
from tollmeter.streams.rules.windows import profile_rows
from tollmeter.streams.rules.windows.snapshot import restore, snapshot
from tollmeter.streams.rules.windows.state import State
from tollmeter.streams.watch.checkpoint import CheckpointStore
from tollmeter.streams.watch.records import fold_records

pytestmark = pytest.mark.stack
RULES = replace(watch_rows.RULES, sources=2)
ASKED = ("session_id", "trace_id")
HOUR = watch_rows.START // 3_600
DAYS_S = 40 * 86_400


@pytest.fixture
def client(ledger_settings: Settings) -> Iterator[ClickHouse]:
    client = connect(ledger_settings)
    for table in ("usage_events", "usage_windows", "watch_progress", "watch_policies", "watch_profiles"):
        client.command(f"TRUNCATE TABLE {table}")
    yield client
    client.close()


@pytest.fixture
def store(ledger_settings: Settings, client: ClickHouse) -> CheckpointStore:
    return CheckpointStore(ledger_settings)


def save(store: CheckpointStore, state: State) -> None:
    taken = snapshot(state)
    for write in store.writes:
        write(taken)


def load(store: CheckpointStore) -> State:
    found = store.load(0)
    assert found is not None
    state = State(0, RULES)
    restore(state, found.progress, found.cells, found.policies)
    profile_rows.load(state, found.profiles)
    return state


def test_an_empty_checkpoint_says_which_log_was_begun_and_the_next_one_wins(store: CheckpointStore) -> None:
    state = State(0, RULES)
    state.log_id = "one"
    assert store.load(0) is None
    save(store, state)
    assert (load(store).log_id, load(store).applied) == ("one", -1)
    fold_records(state, [rows_record(0, [watch_rows.row(0, watch_rows.START)])])
    save(store, state)
    assert load(store).applied == 0
    assert cells_of(load(store)) == cells_of(state)


def test_profiles_come_back_bit_by_bit_and_the_newest_wins(store: CheckpointStore) -> None:
    state = State(0, RULES)
    for number, name in enumerate(("a", "b\x00'", "a")):
        at = watch_rows.START + 60 * number
        row = watch_rows.row(number, at, api_key_id=name, prompt_hash=bytes([number] * 8).hex())
        value, headers = tick_record({0: int(at) * 1000})
        fold_records(state, [rows_record(2 * number, [row])])
        fold_records(state, [rows_record(0, [])._replace(offset=2 * number + 1, headers=headers, value=value)])
        save(store, state)
    assert len(profiles_of(state)) == 4 + 5  # two keys, address, organisation; series, of the user too
    assert profiles_of(load(store)) == profiles_of(state)


def test_a_session_that_is_empty_ahead_of_the_progress_takes_no_correction_again(store: CheckpointStore) -> None:
    """Its one call was taken back, and the next checkpoint came no further than its cells: the replay begins before."""
    policy = Policy(org_id="acme", scope="session", applies="each_member", daily_limit_micro=1)
    value, headers = control_record(PolicySet(policy=policy))
    call = watch_rows.row(1, watch_rows.START, session_id="s1", cost_nano=700)
    gone = {**call, "revision": 1, "status": VOID, "cost_nano": 0}
    log = [
        rows_record(0, [])._replace(value=value, headers=headers),
        rows_record(1, [call], *ASKED),
        rows_record(2, [])._replace(value=value, headers=headers),
        correction_record(3, [call], [gone], watch_rows.START, *ASKED),
    ]
    state = State(0, RULES)
    fold_records(state, log[:2])
    save(store, state)
    session = ("acme", "session", "s1")
    assert session in {cell[1:4] for cell in cells_of(load(store))}, "also before every source's clock is known"
    fold_records(state, log[2:])
    taken = snapshot(state)
    store.writes[0](taken)
    assert taken.cells.filter(scope="session").select("calls", "cost_nano").rows() == [(0, 0)]
    again = load(store)
    assert again.applied == 1
    fold_records(again, log[2:])
    assert cells_of(again) == cells_of(state) == {}
    save(store, again)
    assert session not in load(store).scopes.names


@pytest.mark.parametrize(("clocks", "loaded"), [({0: 1}, True), ({0: 1, 1: 1}, False)], ids=["one", "both"])
def test_old_cells_are_left_out_once_every_source_has_passed_them(
    store: CheckpointStore, clocks: dict[int, int], loaded: bool
) -> None:
    """Of a source partition that nobody has heard of yet anything may still come."""
    state = State(0, RULES)
    fold_records(state, [rows_record(0, [watch_rows.row(0, watch_rows.START)])])
    save(store, state)
    value, headers = tick_record(dict.fromkeys(clocks, (watch_rows.START + DAYS_S) * 1000))
    fold_records(state, [rows_record(0, [])._replace(offset=1, headers=headers, value=value)])
    save(store, state)
    assert bool(load(store).levels["minute"]) is loaded


def test_behind_a_gap_hours_of_rows_that_were_corrected_since_are_named_too(
    store: CheckpointStore, client: ClickHouse
) -> None:
    columns = ("event_id", "event_time", "received_at", "org_id", "priced_partition", "priced_offset", "revision")
    at = [watch_rows.START + hour * 3_600 for hour in range(4)]
    places = [(0, 4, 0), (0, 9, 0), (0, 9, 1), (1, 4, 0)]
    client.insert_rows(
        "usage_events",
        columns,
        [(f"00000000-0000-4000-8000-{n:012d}", at[n], at[n], "acme", *place) for n, place in enumerate(places)],
    )
    assert store.hours_at(0, 3, 5) == [("acme", HOUR), ("acme", HOUR + 2)]
