"""python -m tests.simulation: many seeds of the line under faults, and the mutants that the oracle must catch."""

import json
import os
import sys
from argparse import ArgumentParser
from typing import Any

from rich.progress import Progress

from tests.simulation.run import Result
from tests.simulation.swarm import Caught, catch_all, pin, simulate, summary, workers


def main(arguments: list[str] | None = None) -> int:
    """Return 0 when no seed was wrong and every mutant was caught, else 1."""
    parser = ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=2_000, help="how many seeds to run (default 2000)")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--mutants", action="store_true", help="also check that each broken version is caught")
    parser.add_argument("--pin", action="store_true", help="and write down which seed catches each of them")
    parser.add_argument("--columns", action="store_true", help="run WATCH's vectorised fold, at a tenth of the speed")
    parser.add_argument("--digests", action="store_true", help="print the hash of each seed's result, and nothing else")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    options = parser.parse_args(arguments)
    seeds = list(range(options.first_seed, options.first_seed + options.seeds))
    hidden = options.json or options.digests or not sys.stderr.isatty()
    with workers(options.processes) as pool, Progress(disable=hidden) as progress:
        results = simulate(seeds, pool, progress, columns=options.columns)
        caught = catch_all(pool, progress, search=True) if options.mutants else {}
    if options.pin:
        pin(caught)
    if options.digests:
        print("\n".join(f"{result.seed} {result.digest}" for result in results))
        return 0
    found = summary(results, caught)
    if options.json:
        print(json.dumps(found))
    else:
        _tell(results, caught, found)
    return int(bool(found["wrong"]) or found["mutants_caught"] < found["mutants"])


def _tell(results: list[Result], caught: dict[str, Caught | None], found: dict[str, Any]) -> None:
    for result in results:
        for problem in result.problems[:5]:
            print(f"seed {result.seed}: {problem}")
    for name, by in caught.items():
        print(f"mutant {name:36} " + (f"caught by seed {by.seed}: {by.problem}" if by else "SURVIVES"))
    print(", ".join(f"{name} {value}" for name, value in found.items() if not isinstance(value, list)))


if __name__ == "__main__":
    sys.exit(main())
