"""A worker's log: ours in full, what a library repeats once in a while."""

import logging
import os
import subprocess
import sys

from tollmeter.streams.engine.logs import Seldom


def record(name: str, text: str, *values: object, level: int = logging.ERROR) -> logging.LogRecord:
    return logging.LogRecord(name, level, "file", 1, text, values, None)


def test_libraries_may_not_repeat_themselves() -> None:
    seldom = Seldom()
    said = [seldom.filter(record("aiokafka", "Unable connect")) for _ in range(5)]
    assert said == [True, False, False, False, False]
    assert seldom.filter(record("aiokafka", "something else"))
    assert seldom.filter(record("aiokafka.cluster", "Unable connect"))


def test_ours_is_always_said() -> None:
    seldom = Seldom()
    for level in (logging.INFO, logging.ERROR):
        assert all(seldom.filter(record("tollmeter.ledger", "waiting: %s", 7, level=level)) for _ in range(5))


def test_our_warnings_are_repeated_seldom_word_for_word() -> None:
    seldom = Seldom()
    said = [
        seldom.filter(record("tollmeter", "checkpoint of %d failed", number, level=logging.WARNING))
        for number in (1, 2, 1, 2)
    ]
    assert said == [True, True, False, False]


def test_a_panic_of_polars_is_a_line_without_a_trace() -> None:
    """A trace for each of many malformed records takes three quarters of all that PRICE can do."""
    program = (
        "import random\n"
        "from tests.fuzz.inputs import batches\n"
        "from tollmeter.streams.engine.logs import log_to_stderr\n"
        "from tollmeter.streams.rules.events.decode_avro import decode\n"
        "log_to_stderr()\n"
        "for values in batches(1, 2_000): decode(values)\n"
    )
    environment = {**os.environ, "RUST_BACKTRACE": "1", "PYTHONPATH": os.pathsep.join(("src", "."))}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert "panicked at" in done.stderr
    assert "stack backtrace" not in done.stderr
