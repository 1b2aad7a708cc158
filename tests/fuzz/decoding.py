"""`python -m tests.fuzz.decoding`: decode a million bad inputs in a process that may neither grow, hang nor crash.

The work is done in a child that measures its memory and that an alarm kills when one batch takes too long; the parent
only counts. What is asked of every batch: each value is one row or one reject, in order, with a known reason.
"""

import argparse
import importlib.util
import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import FunctionType
from typing import Any

from tests.fuzz.inputs import batches, good
from tollmeter.schemas import cloudevents, codec
from tollmeter.streams.rules.events import decode_avro as decode_avro
from tollmeter.streams.rules.events import decode_json
from tollmeter.streams.rules.events import validate as validation
from tollmeter.streams.rules.events.decode_avro import REASONS, Decoded, decode
from tollmeter.streams.rules.events.validate import Validated, validate

LIMIT_MB = 512
BATCH_S = 60
ENGINES = ("mutations", "hypothesis", "atheris")
ROUND = 2_000
"""Examples after which hypothesis begins anew: it remembers all that it made."""
Batches = Iterable[Sequence[bytes | None]]
CRASHED = 1


class BrokenError(AssertionError):
    """A batch was not accounted for."""


def check(values: Sequence[bytes | None]) -> Decoded:
    """Decode and validate a batch. Raises `BrokenError` unless each value is exactly one row or one reject."""
    decoded = decode(values)
    account(range(len(values)), decoded)
    account(decoded.index, validate(decoded.frame, decoded.index))
    return decoded


def account(places: Sequence[int], found: Decoded | Validated) -> None:
    """Raise `BrokenError` unless each place has one row or one reject, rows are in order and reasons are known."""
    rejected = [reject.position for reject in found.rejects]
    if sorted([*found.index, *rejected]) != list(places) or found.index != sorted(found.index):
        raise BrokenError("a value is neither a row nor a reject, or both")
    if unknown := {reject.reason for reject in found.rejects}.difference(REASONS):
        raise BrokenError(f"unknown reasons {unknown}")
    if found.frame.height != len(found.index):
        raise BrokenError("rows without a place")


def memory_mb() -> int:
    """Return the most memory that this process ever had resident.

    Not what getrusage says on Linux: it counts what the process that started this one had resident, too.
    """
    status = Path("/proc/self/status")
    if status.exists():
        peak = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(peak.split()[1]) >> 10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // (1 << 20 if sys.platform == "darwin" else 1 << 10)


def work(source: Batches) -> dict[str, Any]:
    """Check batch after batch under the limits; return what was counted."""
    check([good(random.Random(0)), b"x", b"{"])  # loads what is loaded late
    started, inputs, rejected, slowest = time.monotonic(), 0, 0, 0.0
    for values in source:
        signal.alarm(BATCH_S)  # without a handler: it ends the process, wherever it hangs
        began = time.monotonic()
        rejected += len(check(values).rejects)
        slowest = max(slowest, time.monotonic() - began)
        inputs += len(values)
    signal.alarm(0)
    return {
        "inputs": inputs,
        "rejected": rejected,
        "seconds": round(time.monotonic() - started, 1),
        "slowest_batch_s": round(slowest, 3),
        "memory_max_mb": memory_mb(),
    }


def _hypothesis(seed: int, inputs: int) -> dict[str, Any]:
    """Let hypothesis make lists of values out of sound events, pieces of them and noise."""
    import hypothesis
    from hypothesis import strategies as st

    sound = st.integers(0, 2**32).map(lambda number: good(random.Random(number)))
    cut = st.builds(lambda data, at: data[: at % (len(data) + 1)], sound, st.integers(0, 5_000))
    joined = st.builds(lambda head, tail: head + tail, cut, st.binary(max_size=200))
    lists = st.lists(st.one_of(sound, cut, joined, st.binary(max_size=300), st.none()), max_size=40)
    counted, round_ = 0, 0

    def examine(values: list[bytes | None]) -> None:
        nonlocal counted
        signal.alarm(BATCH_S)
        counted += len(values)
        check(values)

    check([good(random.Random(0)), b"x", b"{"])
    started = time.monotonic()
    while counted < inputs:
        few = hypothesis.settings(max_examples=max(1, min(ROUND, inputs // 10)), deadline=None, database=None)
        hypothesis.seed(seed * ROUND + round_)(few(hypothesis.given(lists)(examine)))()
        round_ += 1
    signal.alarm(0)
    return {"inputs": counted, "seconds": round(time.monotonic() - started, 1), "memory_max_mb": memory_mb()}


def _atheris(seed: int, inputs: int) -> None:
    """Let atheris look for new paths through the decoder's Python; it ends the process itself."""
    import atheris

    neighbours = [good(random.Random(number)) for number in range(2)]
    runs = 0

    def examine(data: bytes) -> None:
        nonlocal runs
        runs += 1
        decoded = check([neighbours[0], data, neighbours[1]])
        if not {0, 2} <= set(decoded.index):
            raise BrokenError("a neighbour was refused")
        if runs == inputs:
            print(json.dumps({"inputs": runs, "process_max_mb": memory_mb()}), flush=True)

    flags = [
        f"-runs={inputs}",
        f"-seed={seed or 1}",
        f"-timeout={BATCH_S}",
        "-rss_limit_mb=0",  # it would count what the process that started this one had resident
        "-max_len=2048",
    ]
    for module in (decode_avro, decode_json, validation, codec, cloudevents):
        for function in vars(module).values():
            if isinstance(function, FunctionType) and function.__module__ == module.__name__:
                atheris.instrument_func(function)
    atheris.Setup([sys.argv[0], *flags], examine)
    atheris.Fuzz()


def missing(engine: str) -> str | None:
    """Say why an engine cannot be used here."""
    return None if engine == "mutations" or importlib.util.find_spec(engine) else f"{engine} is not installed"


def run(engine: str, inputs: int, seed: int, patience_s: float) -> dict[str, Any]:
    """Run an engine in a limited child; return its counts and how it ended."""
    command = [sys.executable, "-m", "tests.fuzz.decoding", "--child", "--engine", engine]
    command += ["--inputs", str(inputs), "--seed", str(seed)]
    started = time.monotonic()
    quiet = {**os.environ, "RUST_BACKTRACE": "0"}  # as in a worker: traces of caught panics take most of the time
    try:
        done = subprocess.run(command, env=quiet, capture_output=True, text=True, timeout=patience_s, check=False)
    except subprocess.TimeoutExpired:
        return {"engine": engine, "crashes": 0, "hangs": 1, "detail": f"no end within {patience_s:g} s"}
    hung = done.returncode == -signal.SIGALRM
    result: dict[str, Any] = {"engine": engine, "crashes": int(done.returncode != 0 and not hung), "hangs": int(hung)}
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    result |= json.loads(lines[-1]) if lines else {}
    if done.returncode:
        result["detail"] = f"exit {done.returncode}: {' '.join(done.stderr.strip().splitlines()[-3:])[-400:]}"
    return {"seconds": round(time.monotonic() - started, 1), **result}


def child(engine: str, inputs: int, seed: int) -> None:
    """Do the work of one engine and print what was counted."""
    makers: dict[str, Callable[[], dict[str, Any] | None]] = {
        "mutations": lambda: work(batches(seed, inputs)),
        "hypothesis": lambda: _hypothesis(seed, inputs),
        "atheris": lambda: _atheris(seed, inputs),
    }
    print(json.dumps(makers[engine]()))


def main() -> int:
    """Fuzz; 0 = every input was accounted for within the limits."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.decoding", description=__doc__)
    parser.add_argument("--inputs", type=int, default=1_000_000, help="values to decode, by each engine [1000000]")
    parser.add_argument("--seed", type=int, default=1, help="draws the values [1]")
    parser.add_argument("--engine", choices=ENGINES, action="append", help="one of them instead of all")
    parser.add_argument("--patience", type=float, default=7_200.0, help="seconds until it counts as hung [7200]")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    engines = chosen.engine or list(ENGINES)
    if chosen.child:
        child(engines[0], chosen.inputs, chosen.seed)
        return 0
    found = [
        {"engine": engine, "not_run": reason}
        if (reason := missing(engine))
        else run(engine, chosen.inputs, chosen.seed, chosen.patience)
        for engine in engines
    ]
    print(json.dumps(found))
    return CRASHED if any(sound(result) is False for result in found) else 0


def sound(result: dict[str, Any]) -> bool | None:
    """Tell whether an engine found nothing; None when it did not run."""
    if "not_run" in result:
        return None
    return not result["crashes"] and not result["hangs"] and result.get("memory_max_mb", 0) < LIMIT_MB


if __name__ == "__main__":
    sys.exit(main())
