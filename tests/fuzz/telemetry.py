"""`python -m tests.fuzz.telemetry`: whatever bytes arrive at the doors of OTLP, they are read or refused.

Inputs are random bytes, requests of real shape that are cut, flipped, spliced or filled with odd values, and documents
of nothing but nesting; what is found goes on to become events. Prints how many inputs were really read.
"""

import argparse
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from tests.otlp_bodies import AT_NS, body_of, logs, record, span, traces
from tests.unit.test_telemetry import AGENTS, DIALECTS, WRAPPED
from tollmeter.producers.telemetry.names import MEANINGS
from tollmeter.producers.telemetry.reading import UnreadableError
from tollmeter.server.auth import Caller, Directories
from tollmeter.server.door import Call
from tollmeter.server.events import EventMaker
from tollmeter.server.otlp import Encoding, read_logs, read_traces

ENCODINGS: tuple[Encoding, ...] = ("json", "protobuf")
ODD: tuple[Any, ...] = (
    *(0, -1, 1, 2**31, 2**53, 2**63, 2**64, 10**30, -(2**63), 0.5, -0.0, 1e308, "1e999", "NaN", "Infinity"),
    *("", " ", "-", "--1", "1_0", "٣", "\ud800", "\x00", "x" * 5_000, "sk-" + "a" * 40, True, False, None, [], {}),
    *([[[]]], {"a": {"b": []}}, {"stringValue": 1}, {"intValue": "x"}, {"doubleValue": "NaN"}, {"boolValue": "true"}),
)
NAMES = tuple(name for names in MEANINGS.values() for name in names)
CALLER = Caller("fuzz", "ingest", "acme", True)


def seeds() -> list[tuple[Encoding, bytes, dict[str, Any]]]:
    """Return requests as senders write them."""
    said = [values for values, _ in DIALECTS.values()] + list(WRAPPED.values())
    spans = [span(number + 1, number, attributes=values) for number, values in enumerate(said)]
    records = [record(values, body={"stringValue": "claude_code.api_request"}) for values, _ in AGENTS.values()]
    documents = [traces([one]) for one in spans] + [traces(spans), logs(records, {"service.name": "claude-code"})]
    return [(encoding, body_of(document, encoding), document) for encoding in ENCODINGS for document in documents]


def damaged(rng: random.Random, body: bytes) -> bytes:
    """Return a body with a few bytes changed, cut, doubled or moved."""
    changed = bytearray(body)
    for _ in range(rng.choice((1, 1, 2, 8))):
        at = rng.randrange(len(changed) + 1)
        kind = rng.randrange(4)
        if kind == 0 and changed:
            changed[at % len(changed)] = rng.randrange(256)
        elif kind == 1:
            del changed[at : at + rng.choice((1, 4, 64, 10_000))]
        elif kind == 2:
            changed[at:at] = rng.randbytes(rng.choice((1, 3, 9)))
        else:
            changed[at:at] = changed[: rng.randrange(40)]
    return bytes(changed)


def odd(rng: random.Random, value: Any) -> Any:
    """Return a document in which some values, and some names of attributes, are of another kind."""
    if rng.random() < 0.03:
        return rng.choice(ODD)
    if isinstance(value, dict):
        return {name: odd(rng, item) for name, item in value.items()}
    if isinstance(value, list):
        return [odd(rng, item) for item in value]
    return rng.choice(NAMES) if isinstance(value, str) and "." in value and rng.random() < 0.1 else value


def inputs(rng: random.Random, known: list[tuple[Encoding, bytes, dict[str, Any]]]) -> tuple[Encoding, bytes]:
    """Return one input."""
    encoding, body, document = rng.choice(known)
    kind = rng.randrange(10)
    if kind == 0:
        return encoding, rng.randbytes(rng.choice((0, 1, 10, 200)))
    if kind == 1:
        return "json", rng.choice((b"[", b'{"resourceSpans":[', b'{"a":')) * rng.choice((3, 50_000))
    if kind < 5:
        return "json", json.dumps(odd(rng, document)).encode()
    return encoding, damaged(rng, body)


def run(count: int, seed: int) -> Counter[str]:
    """Read so many inputs; return what became of them. Whatever a door must not do raises."""
    rng, known, told = random.Random(seed), seeds(), Counter[str]()
    maker = EventMaker(Directories([]), "pepper")
    readers: tuple[Callable[..., Any], ...] = (read_traces, read_logs)
    for _ in range(count):
        encoding, body = inputs(rng, known)
        for read in readers:
            try:
                reading = read(body, encoding)
            except UnreadableError:
                told["refused whole"] += 1
                continue
            told["read"] += 1
            told["refused"] += len(reading.refused)
            for call in reading.calls:
                made = maker.make(Call(call.place, call.fields), CALLER, AT_NS // 1_000)
                told[type(made).__name__] += 1
    return told


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.telemetry", description=__doc__)
    parser.add_argument("--inputs", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args()
    began = time.perf_counter()
    told = run(chosen.inputs, chosen.seed)
    took = time.perf_counter() - began
    sys.stdout.write(f"{chosen.inputs:,} inputs at both doors, seed {chosen.seed}, {took:.0f} s: {dict(told)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
