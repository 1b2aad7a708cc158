"""The backlogs: in order, bounded, each row checked, each file owned by one living process."""

import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from tollmeter.producers.client.backlog import Backlog, MemoryBacklog
from tollmeter.producers.client.spool import Spool, adopt, create


@pytest.fixture(params=["memory", "disk"])
def backlog(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Backlog]:
    made: Backlog = MemoryBacklog(10) if request.param == "memory" else create(tmp_path, "t", 100)
    yield made
    made.close()


def events(*numbers: int) -> list[tuple[int, bytes]]:
    return [(number, b"body-%05d" % number) for number in numbers]


def test_first_in_first_out(backlog: Backlog) -> None:
    assert (len(backlog), backlog.oldest(), backlog.first(5)) == (0, None, ([], 0))
    last, lost = backlog.append(events(1, 2, 3))
    assert lost == 0
    backlog.append(events(4))
    assert (len(backlog), backlog.oldest()) == (4, 1)
    found, _ = backlog.first(2)
    assert [(event.seq, event.body) for event in found] == events(1, 2)
    backlog.remove(last)
    assert (len(backlog), backlog.oldest()) == (1, 4)
    assert [event.seq for event in backlog.first(9)[0]] == [4]


def test_what_does_not_fit_is_said(backlog: Backlog) -> None:
    last, lost = backlog.append(events(*range(1, 13)))
    assert (len(backlog), lost) == (10, 2)
    assert backlog.append(events(13)) == (0, 1)
    backlog.remove(last)
    assert backlog.append(events(14))[1] == 0


def test_a_broken_row_is_dropped_and_its_neighbours_stay(tmp_path: Path) -> None:
    spool = create(tmp_path, "t", 1_000)
    spool.append(events(1, 2, 3))
    (file,) = tmp_path.glob("*.db")
    with sqlite3.connect(file) as other:
        other.execute("UPDATE spool SET body = x'00ff' WHERE seq = 2")
    other.close()
    found, broken = spool.first(9)
    assert ([event.seq for event in found], broken, len(spool)) == ([1, 3], 1, 2)
    assert spool.first(9)[1] == 0
    spool.close()


@pytest.mark.parametrize("cut", [0, 1, 100, 4_096, 5_000])
def test_a_torn_file_is_set_aside(tmp_path: Path, cut: int) -> None:
    spool = create(tmp_path, "t", 100_000)
    spool.append(events(*range(1, 200)))
    spool.close()
    (file,) = tmp_path.glob("*.db")
    data = file.read_bytes()
    file.write_bytes(data[:cut] if cut else b"no database at all" * 300)
    again = adopt(tmp_path, ["t"], 100_000)
    if again is not None:  # SQLite could open it: then what it gives out is whole
        try:
            found, _ = again.first(1_000)
            assert all(event.body.startswith(b"body-") for event in found)
        except sqlite3.Error:
            again.set_aside()
        again.close()
    assert len(list(tmp_path.glob("*.broken"))) <= 1


def test_a_file_has_one_owner(tmp_path: Path) -> None:
    spool = create(tmp_path, "t", 1_000)
    spool.append(events(1, 2))
    assert adopt(tmp_path, ["t"], 1_000) is None, "its owner lives"
    spool.close()
    assert adopt(tmp_path, ["other"], 1_000) is None, "it belongs to another broker"
    adopted = adopt(tmp_path, ["t"], 1_000)
    assert adopted is not None
    assert adopt(tmp_path, ["t"], 1_000) is None
    found, _ = adopted.first(9)
    assert [(event.seq, event.body) for event in found] == [(0, body) for _, body in events(1, 2)]
    adopted.remove(found[-1].row)
    adopted.close()
    assert list(tmp_path.iterdir()) == []


def test_a_fork_leaves_the_file_to_the_parent(tmp_path: Path) -> None:
    spool = create(tmp_path, "t", 1_000)
    spool.append(events(1))
    child = os.fork()
    if child == 0:
        try:
            spool.append(events(2))
        except OSError:
            os._exit(0)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0, "the child may not write into it"
    spool.append(events(3))
    assert [event.seq for event in spool.first(9)[0]] == [1, 3]
    spool.close()
    adopted = adopt(tmp_path, ["t"], 1_000)
    assert isinstance(adopted, Spool), "no copy of the lock stayed behind"
    adopted.close()


def test_only_its_user_can_read_it(tmp_path: Path) -> None:
    spool = create(tmp_path / "new", "t", 1_000)
    assert (tmp_path / "new").stat().st_mode & 0o077 == 0
    spool.close()
