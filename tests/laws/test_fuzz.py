"""Law: whatever bytes arrive, decode() ends soon, in bounded memory, with one row or one reject for each value."""

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from tests.fuzz.decoding import LIMIT_MB, BrokenError, account, check, missing, run, sound
from tests.fuzz.inputs import batches, good
from tollmeter.streams.rules.events.decode_avro import Decoded, Reject

pytestmark = pytest.mark.timeout(600)


@pytest.mark.parametrize(("engine", "inputs"), [("mutations", 8_000), ("hypothesis", 800), ("atheris", 1_500)])
def test_decode_survives(engine: str, inputs: int) -> None:
    """`python -m tests.fuzz.decoding` does the same with a million."""
    if reason := missing(engine):
        pytest.skip(reason)
    result = run(engine, inputs, seed=1, patience_s=500)
    assert sound(result), result
    assert result["inputs"] > inputs / 10
    assert engine == "atheris" or 0 < result["memory_max_mb"] < LIMIT_MB


def test_inputs_are_drawn_from_the_seed_and_many_are_bad() -> None:
    values = [value for batch in batches(3, 500) for value in batch]
    assert values == [value for batch in batches(3, 500) for value in batch]
    assert len(values) == 500
    rejected = sum(len(check(batch).rejects) for batch in batches(3, 500))
    assert 50 < rejected < 450


def _decoded(index: list[int], rejects: list[Reject]) -> Decoded:
    return Decoded(pl.DataFrame({"event_id": ["x"] * len(index)}), index, rejects)


@pytest.mark.parametrize(
    "found",
    [
        pytest.param(_decoded([0], []), id="one-is-missing"),
        pytest.param(_decoded([0, 1], [Reject(1, "empty", "")]), id="one-is-both"),
        pytest.param(_decoded([1, 0], []), id="out-of-order"),
        pytest.param(_decoded([0], [Reject(1, "no such reason", "")]), id="unknown-reason"),
    ],
)
def test_what_is_not_accounted_for_is_noticed(found: Decoded) -> None:
    with pytest.raises(BrokenError):
        account(range(2), found)


def _child(text: str) -> "subprocess.CompletedProcess[str]":
    program = f"from tests.fuzz import decoding\n{text}"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(("src", "."))}
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, env=environment)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="no /proc: another way of measuring")
def test_a_child_that_grows_is_noticed() -> None:
    """Its own memory alone: not that of the process which started it."""
    small, large = (_child(f"x = b'x' * {mb << 20}\nprint(decoding.memory_mb())") for mb in (1, 600))
    assert int(small.stdout) < LIMIT_MB < 600 < int(large.stdout)


def test_a_child_that_hangs_is_killed() -> None:
    done = _child("decoding.BATCH_S = 1\ndef hang():\n    yield []\n    while True: pass\ndecoding.work(hang())")
    assert done.returncode == -signal.SIGALRM


def test_sound_events_are_rows() -> None:
    rng = random.Random(1)
    assert not check([good(rng) for _ in range(50)]).rejects
