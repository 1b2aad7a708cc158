"""Many seeds on several processes, and the search for a seed that catches a mutant."""

import gc
import logging
import multiprocessing
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from multiprocessing.pool import Pool
from pathlib import Path
from typing import Any, NamedTuple

from rich.progress import Progress

from tests.simulation.mutants import MUTANTS, Mutant
from tests.simulation.run import Result, first_problem, run

SEEDS_FILE = Path(__file__).with_name("seeds.txt")
MUTANT_SEEDS_FILE = Path(__file__).with_name("mutant_seeds.txt")
MUTANT_SEEDS = 800
"""So many seeds a mutant may survive before it counts as not caught."""
CHUNK = 10


def quiet() -> None:
    """Silence what killed processes leave behind: warnings of the stages, coroutines that were never awaited.

    Their cycles are collected between chunks: a run makes many objects, and few that outlive it.
    """
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    gc.freeze()
    gc.disable()


def kept_seeds() -> list[int]:
    """Return the seeds that failed once: they are always run."""
    lines = (line.partition("#")[0].strip() for line in SEEDS_FILE.read_text(encoding="utf-8").splitlines())
    return [int(line) for line in lines if line]


def mutant_seeds() -> dict[str, int]:
    """Return for each mutant the seed that is known to catch it: trying it first spares a search."""
    lines = MUTANT_SEEDS_FILE.read_text(encoding="utf-8").splitlines()
    pairs = (line.split(maxsplit=1) for line in lines if line and not line.startswith("#"))
    return {name: int(seed) for seed, name in pairs}


def pin(caught: "dict[str, Caught | None]") -> None:
    """Write down which seed catches each mutant."""
    head = MUTANT_SEEDS_FILE.read_text(encoding="utf-8").partition("\n")[0]
    lines = [f"{by.seed:<5} {name}" for name, by in caught.items() if by is not None]
    MUTANT_SEEDS_FILE.write_text("\n".join([head, *lines]) + "\n", encoding="utf-8")


class Caught(NamedTuple):
    """The seed that shows that something is wrong with a mutant, and the first thing that is."""

    seed: int
    problem: str


def catch(mutant: Mutant, seeds: Iterable[int]) -> Caught | None:
    """Return the first of these seeds that shows that something is wrong with a mutant."""
    with mutant.applied() as make:
        for seed in seeds:
            problem = first_problem(seed, make, columns=mutant.columns, kind=mutant.kind)
            if problem is not None:
                return Caught(seed, problem)
    return None


def _run_some(seeds: list[int], *, columns: bool) -> list[Result]:
    results = [run(seed, columns=columns) for seed in seeds]
    gc.collect()
    return results


def _catch_number(number: int, *, search: bool) -> tuple[str, Caught | None]:
    mutant = MUTANTS[number]
    known = mutant_seeds().get(mutant.name)
    first = [] if search or known is None else [known]
    return mutant.name, catch(mutant, [*first, *kept_seeds(), *range(MUTANT_SEEDS)])


def _chunks(seeds: list[int]) -> list[list[int]]:
    return [seeds[begin : begin + CHUNK] for begin in range(0, len(seeds), CHUNK)]


@contextmanager
def workers(count: int) -> Iterator[Pool | None]:
    """Start processes that runs are dealt out to; None is this one."""
    if count == 1:
        quiet()
        try:
            yield None
        finally:
            gc.enable()
        return
    with multiprocessing.get_context("spawn").Pool(count, initializer=quiet) as pool:
        yield pool


def _each(work: Any, inputs: list[Any], pool: Pool | None) -> Iterator[Any]:
    yield from map(work, inputs) if pool is None else pool.imap_unordered(work, inputs)


def simulate(
    seeds: list[int], pool: Pool | None, progress: Progress | None = None, *, columns: bool = False
) -> list[Result]:
    """Run seeds in several processes; return the results in the order of the seeds."""
    task = None if progress is None else progress.add_task(f"{len(seeds)} seeds", total=len(seeds))
    results: list[Result] = []
    for some in _each(partial(_run_some, columns=columns), _chunks(seeds), pool):
        results += some
        if progress is not None and task is not None:
            wrong = sum(bool(result.problems) for result in results)
            progress.update(task, advance=len(some), description=f"{len(results)} seeds, {wrong} wrong")
    return sorted(results, key=lambda result: result.seed)


def catch_all(pool: Pool | None, progress: Progress | None = None, *, search: bool = False) -> dict[str, Caught | None]:
    """Return for each mutant what caught it, None when none did; `search` forgets which seed did before."""
    task = None if progress is None else progress.add_task("mutants", total=len(MUTANTS))
    found = {}
    for name, result in _each(partial(_catch_number, search=search), list(range(len(MUTANTS))), pool):
        found[name] = result
        if progress is not None and task is not None:
            progress.update(task, advance=1)
    return {mutant.name: found[mutant.name] for mutant in MUTANTS}


def summary(results: list[Result], caught: dict[str, Caught | None]) -> dict[str, Any]:
    failing = [result.seed for result in results if result.problems]
    return {
        "seeds": len(results),
        "wrong": len(failing),
        "failing_seeds": failing,
        "steps": sum(result.steps for result in results),
        "kills": sum(result.kills for result in results),
        "mutants": len(caught),
        "mutants_caught": sum(result is not None for result in caught.values()),
    }
