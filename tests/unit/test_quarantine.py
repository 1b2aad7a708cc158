"""Starts are counted where the group commits; what ends a process is found in a process of its own, and only that."""

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.errors import KafkaError
from faust.types import TP

from tests.exchange import dated
from tests.usage_rows import AT, avro, fields
from tollmeter.streams.price import sandbox as sandbox
from tollmeter.streams.price.batch import price_batch
from tollmeter.streams.price.book.book import load
from tollmeter.streams.price.quarantine import LIVED_S, Note, Quarantine, read_note, taken_over
from tollmeter.streams.price.sandbox import Sandbox, pack, unpack

TOPIC = "usage.events"


class Group:
    """What a consumer group has committed."""

    def __init__(self) -> None:
        self.committed: dict[TP, tuple[int, str]] = {}
        self.broken = False

    async def read(self, tps: set[TP]) -> dict[TP, tuple[int, str]]:
        if self.broken:
            raise KafkaError
        return {tp: self.committed.get(tp, (0, "")) for tp in tps}

    async def write(self, offsets: Any) -> None:
        self.committed |= offsets


class Tries:
    """Finds the records of value b"kill"."""

    def __init__(self) -> None:
        self.tried = self.closed = 0

    async def killers(self, records: Any) -> dict[tuple[int, int], str]:
        self.tried += 1
        return {(record.partition, record.offset): "dies" for record in records if record.value == b"kill"}

    async def close(self) -> None:
        self.closed += 1


class World:
    def __init__(self) -> None:
        self.group, self.now = Group(), 0.0

    def worker(self, boot: str) -> tuple[Quarantine, Tries]:
        tries = Tries()
        return Quarantine(boot, self.group.read, self.group.write, lambda: self.now, tries), tries


def record(partition: int, offset: int, value: bytes | None = b"") -> Any:
    return SimpleNamespace(partition=partition, offset=offset, value=value, headers=(), timestamp=AT // 1000)


A, B = TP(TOPIC, 0), TP(TOPIC, 1)
PASS = [[record(0, 5, b"kill"), record(0, 6)], [record(1, 1, b"kill")]]


def test_third_start_in_a_row_suspects_and_no_earlier_one() -> None:
    async def scenario() -> None:
        world = World()
        for number in (1, 2, 3):
            worker, tries = world.worker(f"boot{number}")
            assert await worker.begin({A}) == {}
            assert read_note(world.group.committed[A][1]) == Note(number, f"boot{number}")
            found = await worker.killers(TOPIC, PASS)
            assert (found, tries.tried) == (({(0, 5): "dies"}, 1) if number == 3 else ({}, 0))

    asyncio.run(scenario())


def test_only_batches_of_suspected_partitions_are_tried() -> None:
    async def scenario() -> None:
        world = World()
        for number in range(3):
            worker, _ = world.worker(f"boot{number}")
            await worker.begin({A, B} if number == 2 else {A})
        assert await worker.killers(TOPIC, PASS) == {(0, 5): "dies"}
        assert await worker.killers(TOPIC, PASS[1:]) == {}

    asyncio.run(scenario())


def test_who_lives_on_commits_no_note_and_the_count_begins_anew() -> None:
    async def scenario() -> None:
        world = World()
        for number in range(3):
            worker, tries = world.worker(f"boot{number}")
            await worker.begin({A})
        world.now += 10 * LIVED_S  # a slow machine: the time counts from the first batch on
        assert worker.metadata(A) != ""
        assert await worker.killers(TOPIC, PASS) == {(0, 5): "dies"}
        world.now += LIVED_S
        assert worker.metadata(A) == ""
        assert await worker.killers(TOPIC, PASS) == {}
        assert (tries.tried, tries.closed) == (1, 1)
        await worker.killers(TOPIC, PASS)
        assert tries.closed == 1
        await world.group.write({A: (9, worker.metadata(A))})
        later, _ = world.worker("later")
        await later.begin({A})
        assert read_note(world.group.committed[A][1]).starts == 1

    asyncio.run(scenario())


def test_partitions_may_go_after_all_have_lived() -> None:
    async def scenario() -> None:
        world = World()
        worker, _ = world.worker("boot")
        await worker.begin({A, B})
        await worker.killers(TOPIC, PASS)
        world.now += LIVED_S
        await worker.killers(TOPIC, PASS)
        assert await worker.begin({A}) == {}
        assert await worker.begin({A, B}) == {}
        assert worker.metadata(A) == ""
        assert worker.metadata(B) != "", "it has come anew"

    asyncio.run(scenario())


def test_partitions_that_move_about_are_never_suspected_but_deaths_in_between_count() -> None:
    async def scenario() -> None:
        world = World()
        for number in range(5):
            worker, _ = world.worker(f"mover{number}")
            await worker.begin({A})
            assert await worker.killers(TOPIC, PASS) == {}
            await worker.leave()
        for number in range(2):
            worker, _ = world.worker(f"dies{number}")
            await worker.begin({A})
            assert await worker.killers(TOPIC, PASS) == {}
        mover, _ = world.worker("mover")
        for _ in range(2):  # it gets it back, and has not lived yet
            await mover.begin({A})
            assert read_note(world.group.committed[A][1]).starts == 3
            await mover.leave()
            assert read_note(world.group.committed[A][1]).starts == 2
        last, _ = world.worker("last")
        await last.begin({A})
        assert await last.killers(TOPIC, PASS) == {(0, 5): "dies"}
        world.now += LIVED_S
        assert last.metadata(A) == ""
        world.group.committed.clear()
        await last.leave()
        assert world.group.committed == {}, "who has lived has nothing to take back"

    asyncio.run(scenario())


def test_a_broker_that_is_gone_holds_up_no_end() -> None:
    async def scenario() -> None:
        world = World()
        worker, _ = world.worker("boot")
        await worker.begin({A})
        world.group.broken = True
        await worker.leave()
        assert worker.metadata(A) == ""

    asyncio.run(scenario())


def test_own_partitions_that_come_back_are_no_new_start() -> None:
    async def scenario() -> None:
        world = World()
        worker, _ = world.worker("boot")
        for assigned in ({A}, {A, B}, {B}, {A, B}):
            await worker.begin(assigned)
        assert read_note(world.group.committed[A][1]).starts == 1

    asyncio.run(scenario())


def test_a_start_that_cannot_be_noted_is_none() -> None:
    async def scenario() -> None:
        world = World()
        world.group.broken = True
        worker, _ = world.worker("boot")
        assert await worker.begin({A}) == {}
        assert worker.metadata(A) == ""
        assert await worker.killers(TOPIC, PASS) == {}

    asyncio.run(scenario())


@pytest.mark.parametrize("text", ["", "[]", "{}", "null", "somebody else's", '{"starts": "x", "boot": "b"}'])
def test_foreign_metadata_is_no_note(text: str) -> None:
    assert read_note(text) == Note(0, "")
    assert taken_over(read_note(text), "me") == Note(1, "me")


def test_records_reach_the_process_as_they_are(tmp_path: Path) -> None:
    sent = [record(3, 2**40, b"abc"), record(4, 0, None), record(4, 1, b"")]
    path = tmp_path / "pipe"
    path.write_bytes(pack(sent) + pack([]))
    with path.open("rb") as stream:
        found = unpack(stream)
        assert found is not None
        assert [(one.partition, one.offset, one.timestamp, one.value) for one in found] == [
            (one.partition, one.offset, one.timestamp, one.value) for one in sent
        ]
        assert unpack(stream) == []
        assert unpack(stream) is None


SANDBOX_PROCESS = """
import os, signal, sys, time
from tollmeter.streams.price.sandbox import DONE, unpack
def done():
    sys.stdout.buffer.write(DONE)
    sys.stdout.buffer.flush()
done()
while (records := unpack(sys.stdin.buffer)) is not None:
    values = [record.value for record in records]
    if b"segv" in values or {b"left", b"right"} <= set(values):
        os.kill(os.getpid(), signal.SIGSEGV)
    if b"exit" in values:
        sys.exit(70)
    if b"hang" in values:
        time.sleep(600)
    if b"once" in values and not os.path.exists(sys.argv[0] + ".once"):
        open(sys.argv[0] + ".once", "w").close()
        os.kill(os.getpid(), signal.SIGKILL)
    done()
"""


@pytest.fixture
def trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that ends as its records say."""
    (tmp_path / "some_trial.py").write_text(SANDBOX_PROCESS)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(sandbox, "SANDBOX_PROCESS", "some_trial")


@pytest.mark.usefixtures("trial")
def test_killers_are_found_among_many_and_nothing_else_is_blamed() -> None:
    values = {17: b"segv", 40: b"exit", 41: b"segv"}

    async def scenario() -> dict[tuple[int, int], str]:
        apart = Sandbox(4)
        try:
            found = await apart.killers([record(0, n, values.get(n, b"fine")) for n in range(100)])
            assert await apart.killers([record(0, 200, b"fine")]) == {}
            return found
        finally:
            await apart.close()

    end = "ends the process: "
    assert asyncio.run(scenario()) == {
        (0, 17): f"{end}SIGSEGV",
        (0, 40): f"{end}exit code 70",
        (0, 41): f"{end}SIGSEGV",
    }


@pytest.mark.usefixtures("trial")
def test_hanging_counts_as_ending_and_records_that_end_it_only_together_go_together() -> None:
    async def scenario() -> None:
        apart = Sandbox(4, patience_s=1.0)
        try:
            assert await apart.killers([record(0, 1, b"hang")]) == {(0, 1): "no answer within 1 s"}
            pair = [record(0, 1, b"left"), record(0, 2, b"right")]
            assert set(await apart.killers(pair)) == {(0, 1), (0, 2)}
        finally:
            await apart.close()

    asyncio.run(scenario())


@pytest.mark.usefixtures("trial")
def test_what_ended_one_process_by_chance_is_not_set_aside() -> None:
    async def scenario() -> dict[tuple[int, int], str]:
        apart = Sandbox(4)
        try:
            return await apart.killers([record(0, 1, b"fine"), record(0, 2, b"once"), record(0, 3, b"fine")])
        finally:
            await apart.close()

    assert asyncio.run(scenario()) == {}


def test_process_that_does_not_start_blames_no_record(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "SANDBOX_PROCESS", "no_such_module")
    with pytest.raises(RuntimeError, match="does not start"):
        asyncio.run(Sandbox(4).killers([record(0, 1)]))


def test_real_process_prices_a_pass() -> None:
    async def scenario() -> None:
        apart = Sandbox(4)
        try:
            sound = [record(n % 2, n, avro(fields(n))) for n in range(0, 20, 2)] + [record(1, 99, b"no event")]
            assert await apart.killers(sound) == {}
        finally:
            await apart.close()

    asyncio.run(scenario())


def test_killers_are_rejected_undecoded_and_their_neighbours_priced() -> None:
    batch = [record(0, n, avro(fields(n))) for n in range(4)] + [record(0, 4, None)]
    priced = price_batch([batch], load(dated()), {(0, 2): "ends the process: SIGSEGV"})
    assert priced.rows["src_offset"].to_list() == [0, 1, 3]
    assert sorted((reject.position, reject.reason) for reject in priced.rejects) == [(2, "quarantined"), (4, "empty")]
    (source,) = priced.sources
    assert (source.records, source.rejected) == (5, 2)
