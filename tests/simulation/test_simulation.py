"""The line under faults: thousands of seeds agree with the oracle, every broken version is caught, seeds replay."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.simulation.mutants import MUTANTS
from tests.simulation.swarm import MUTANT_SEEDS, catch, catch_all, kept_seeds, simulate

ROOT = Path(__file__).parents[2]
SEEDS, COLUMN_SEEDS = 2_000, 40
CORES = min(2, os.cpu_count() or 1)


@pytest.mark.timeout(600)
def test_no_seed_is_wrong() -> None:
    results = simulate([*kept_seeds(), *range(SEEDS)], CORES)
    assert {result.seed: result.problems[:3] for result in results if result.problems} == {}
    assert sum(result.kills for result in results) > SEEDS  # faults did happen


@pytest.mark.timeout(600)
def test_no_seed_is_wrong_with_the_vectorised_fold() -> None:
    results = simulate(list(range(COLUMN_SEEDS)), CORES, columns=True)
    assert {result.seed: result.problems[:3] for result in results if result.problems} == {}


@pytest.mark.timeout(600)
def test_every_mutant_is_caught() -> None:
    caught = catch_all(CORES)
    assert len(caught) >= 14
    assert [name for name, result in caught.items() if result is None] == []


def test_a_mutant_that_is_none_survives() -> None:
    """The catcher blames nobody: production itself, taken for a mutant, is not caught."""
    honest = MUTANTS[0]._replace(name="honest", make={}, patches=())
    assert catch(honest, range(min(20, MUTANT_SEEDS))) is None


def test_a_seed_gives_the_same_result_again() -> None:
    found = set()
    for hash_seed in ("1", "2"):
        command = [sys.executable, "-W", "ignore", "-m", "tests.simulation", "--digests", "--processes", "1"]
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"}
        run = subprocess.run(
            [*command, "--seeds", "12"], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
        )
        found.add(run.stdout)
    assert len(found) == 1, "the result of a seed depends on the hash seed of the interpreter"
    assert next(iter(found)).count("\n") == 12
