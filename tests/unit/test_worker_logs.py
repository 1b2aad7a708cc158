"""A worker's log: ours in full, what a library repeats once in a while."""

import logging

from tollmeter.streams.logs import Seldom


def record(name: str, text: str) -> logging.LogRecord:
    return logging.LogRecord(name, logging.ERROR, "file", 1, text, (), None)


def test_libraries_may_not_repeat_themselves() -> None:
    seldom = Seldom()
    said = [seldom.filter(record("aiokafka", "Unable connect")) for _ in range(5)]
    assert said == [True, False, False, False, False]
    assert seldom.filter(record("aiokafka", "something else"))
    assert seldom.filter(record("aiokafka.cluster", "Unable connect"))


def test_ours_is_always_said() -> None:
    seldom = Seldom()
    assert all(seldom.filter(record("tollmeter.ledger", "waiting: %s")) for _ in range(5))
