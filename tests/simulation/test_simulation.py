"""The line under faults: all seeds agree with the oracle, every broken version is caught, a seed replays."""

import os
import subprocess
import sys
from collections.abc import Iterator
from multiprocessing.pool import Pool
from pathlib import Path

import pytest

from tests.simulation.mutants import MUTANTS
from tests.simulation.run import run
from tests.simulation.swarm import MUTANT_SEEDS, catch, catch_all, kept_seeds, mutant_seeds, simulate, workers

ROOT = Path(__file__).parents[2]
CORES = min(2, os.cpu_count() or 1)


KEPT_WITH_COLUMNS = (7001948, 7200609)
"""A partition that went and came back while alerts of another one were sent: what came before it had left. A session
whose one call was taken back between a checkpoint's cells and its progress: the empty cell keeps the replay from taking
it back again."""


@pytest.fixture(scope="module")
def pool() -> Iterator[Pool | None]:
    """The processes that the seeds of this file run in."""
    with workers(CORES) as started:
        yield started


def short_and_long(short: int, long: int) -> "pytest.MarkDecorator":
    """A count for each commit and one for the night."""
    return pytest.mark.parametrize("count", [short, pytest.param(long, marks=pytest.mark.nightly)])


@pytest.mark.timeout(1_800)
@short_and_long(200, 2_000)
def test_no_seed_is_wrong(pool: Pool, count: int) -> None:
    results = simulate([*kept_seeds(), *range(count)], pool)
    assert {result.seed: result.problems[:3] for result in results if result.problems} == {}
    assert sum(result.kills for result in results) > count  # faults did happen


@pytest.mark.timeout(1_800)
@short_and_long(12, 200)
def test_no_seed_is_wrong_with_the_vectorised_fold(pool: Pool, count: int) -> None:
    results = simulate([*KEPT_WITH_COLUMNS, *range(count)], pool, columns=True)
    assert {result.seed: result.problems[:3] for result in results if result.problems} == {}


@pytest.mark.timeout(1_800)
def test_every_mutant_is_caught(pool: Pool) -> None:
    """By the seed that is known to catch it; where the simulator's draws have changed, the search begins again."""
    caught = catch_all(pool)
    assert len(caught) >= 14
    assert [name for name, found in caught.items() if found is None] == []
    crashed = {name: found.problem for name, found in caught.items() if found and "TypeError" in found.problem}
    assert crashed == {}, "a mutant that no longer fits the code it breaks shows nothing"


@pytest.mark.nightly
@pytest.mark.timeout(1_800)
def test_the_seeds_that_catch_mutants_are_the_first_ones(pool: Pool) -> None:
    """`mutant_seeds.txt` is what a search finds, and nothing is wrong with these seeds without the mutant.

    On a difference, write there what stands here.
    """
    caught = catch_all(pool, search=True)
    for mutant in MUTANTS:
        if (found := caught[mutant.name]) is not None:
            assert run(found.seed, columns=mutant.columns, kind=mutant.kind).problems == [], mutant.name
    assert {name: found and found.seed for name, found in caught.items()} == mutant_seeds()


@short_and_long(10, MUTANT_SEEDS)
def test_a_mutant_that_is_none_survives(count: int) -> None:
    """The catcher blames nobody: production itself, taken for a mutant, is not caught."""
    honest = MUTANTS[0]._replace(name="honest", make={}, patches=())
    assert catch(honest, range(count)) is None


def test_a_seed_gives_the_same_result_again() -> None:
    found = set()
    for hash_seed in ("1", "2"):
        command = [sys.executable, "-W", "ignore", "-m", "tests.simulation", "--digests", "--processes", "1"]
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"}
        done = subprocess.run(
            [*command, "--seeds", "6"], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
        )
        found.add(done.stdout)
    assert len(found) == 1, "the result of a seed depends on the hash seed of the interpreter"
    assert next(iter(found)).count("\n") == 6
