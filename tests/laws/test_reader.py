"""Law: of what a reader sends, what passes is the same statement to the engine and names what is on the lists."""

import json
import subprocess
import sys
from collections import Counter

import pytest

from tests.fuzz.reader_statements import Hostile
from tollmeter.embedded.errors import FrontError
from tollmeter.embedded.readonly import judge

pytestmark = pytest.mark.timeout(600)


@pytest.mark.parametrize(
    ("inputs", "seed", "executed"),
    [(3_000, 1, 0.3), *(pytest.param(100_000, seed, 0.1, marks=pytest.mark.nightly) for seed in range(201, 211))],
)
def test_what_passes_is_harmless_to_an_engine_that_nothing_confines(inputs: int, seed: int, executed: float) -> None:
    """At night a million, in ten pieces."""
    command = [sys.executable, "-m", "tests.fuzz.reader", "--inputs", str(inputs), "--seed", str(seed)]
    done = subprocess.run([*command, "--executed", str(executed)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    counts = json.loads(done.stdout.splitlines()[-1])
    assert counts["inputs"] == inputs
    assert 40 < counts["trees"] <= counts["of_which_statements"] <= counts["passed"] < 0.9 * inputs
    assert counts["executed"] > 10


def test_statements_are_drawn_from_the_seed_and_judging_raises_nothing_else() -> None:
    one, two = Hostile(7, confined=True), Hostile(7, confined=True)
    texts = [one.statement() for _ in range(3_000)]
    assert texts == [two.statement() for _ in range(3_000)]
    codes = Counter(_judged(text) for text in texts)
    assert set(codes) == {0, 62, 164}
    assert all(count > 300 for count in codes.values()), codes


def _judged(text: str) -> int:
    try:
        judge(text, frozenset({"file"}))
    except FrontError as refused:
        return refused.code
    return 0
