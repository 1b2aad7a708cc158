"""A shortage before, during or after an INSERT refuses it; waiting ends with the shortage, or when told."""

import threading
from pathlib import Path

import pytest

from tollmeter.embedded import space
from tollmeter.embedded.engine import stores
from tollmeter.embedded.errors import FrontError
from tollmeter.embedded.space import Space
from tollmeter.sinks.clickhouse.queries import load

NEVER_ENOUGH = 1 << 62


def test_enough_room_lets_pass(tmp_path: Path) -> None:
    with Space(str(tmp_path)).needed():
        pass


@pytest.mark.parametrize("when", ["before", "during", "after"])
def test_a_shortage_at_any_moment_refuses(when: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    watched, enough = Space(str(tmp_path)), space.LEAST_BYTES
    ran = False
    if when == "before":
        monkeypatch.setattr(space, "LEAST_BYTES", NEVER_ENOUGH)
    with pytest.raises(FrontError, match=r"Code: 243.*free on the disk of .*NOT_ENOUGH_SPACE") as refused:  # noqa: PT012, SIM117
        with watched.needed():
            ran = True
            if when != "before":
                monkeypatch.setattr(space, "LEAST_BYTES", NEVER_ENOUGH)
            if when == "during":
                assert watched.look()
                monkeypatch.setattr(space, "LEAST_BYTES", enough)
    assert refused.value.status == 500
    assert ran == (when != "before")


def test_a_shortage_that_is_over_refuses_nothing_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    watched, enough = Space(str(tmp_path)), space.LEAST_BYTES
    monkeypatch.setattr(space, "LEAST_BYTES", NEVER_ENOUGH)
    assert watched.look()
    monkeypatch.setattr(space, "LEAST_BYTES", enough)
    with watched.needed():
        pass


def test_waiting_ends_with_what_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    watched, ended = Space(str(tmp_path)), threading.Event()
    assert watched.wait(ended, short=False)
    monkeypatch.setattr(space, "LEAST_BYTES", NEVER_ENOUGH)
    assert watched.wait(ended, short=True)
    ended.set()
    assert not watched.wait(ended, short=False)


@pytest.mark.parametrize(
    "query", ["INSERT INTO t", " insert into t SELECT 1", "-- why\nINSERT INTO t SELECT 1", "/* a\nb */ INSERT INTO t"]
)
def test_a_statement_that_stores_is_known_behind_its_comments(query: str) -> None:
    assert stores(query)
    assert stores(load("rollup_recompute"))


@pytest.mark.parametrize("query", ["SELECT 'INSERT INTO t'", "-- INSERT INTO t\nSELECT 1", "TRUNCATE TABLE t", ""])
def test_a_statement_that_reads_or_makes_room_does_not_store(query: str) -> None:
    assert not stores(query)


@pytest.mark.parametrize(
    ("free", "pause_s"),
    [
        (0, space.LOOK_S),
        (space.LEAST_BYTES, space.LOOK_S),
        (space.LEAST_BYTES + space.FILLED_PER_S // 100, space.LOOK_S),
        (space.LEAST_BYTES + space.FILLED_PER_S, 0.5),
        (1 << 50, space.SELDOM_S),
    ],
)
def test_the_next_look_comes_before_the_disk_can_be_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, pause_s: float
) -> None:
    watched = Space(str(tmp_path))
    monkeypatch.setattr(watched, "_free", lambda: free)
    assert watched._pause_s() == pause_s
    assert pause_s == space.LOOK_S or pause_s * space.FILLED_PER_S <= free - space.LEAST_BYTES
