"""A worker's log: ours in full, what a library repeats once in a while."""

import logging
import os
import subprocess
import sys

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


def test_a_panic_of_polars_is_a_line_without_a_trace() -> None:
    """A trace for each of many malformed records takes three quarters of all that PRICE can do."""
    program = (
        "import random\n"
        "from tests.fuzz.inputs import batches\n"
        "from tollmeter.streams.logs import log_to_stderr\n"
        "from tollmeter.streams.rules.decode import decode\n"
        "log_to_stderr()\n"
        "for values in batches(1, 2_000): decode(values)\n"
    )
    environment = {**os.environ, "RUST_BACKTRACE": "1", "PYTHONPATH": os.pathsep.join(("src", "."))}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=120, check=True
    )
    assert "panicked at" in done.stderr
    assert "stack backtrace" not in done.stderr
