"""`python -m benchmarks.otlp`: what one span of a model call costs, from the body of a request to its event's fields.

100 spans a request, as instrumentations write them, with prompt and answer in them; CPU time of this process, the best
of many runs. Beside it what protobuf's own reader of JSON takes for the same body, without looking at a span.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable

from google.protobuf import json_format
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.otlp_bodies import CURRENT, body_of, span, traces
from tollmeter.server.auth import Caller, Directories
from tollmeter.server.door import Call
from tollmeter.server.events import EventMaker
from tollmeter.server.otlp import read_traces

SPANS = 100
GOAL_US = 15.0


def best_us(work: Callable[[], object], runs: int) -> float:
    """Return the least CPU time of a run, in microseconds a span."""
    best = float("inf")
    for _ in range(runs):
        began = time.process_time_ns()
        work()
        best = min(best, time.process_time_ns() - began)
    return round(best / SPANS / 1_000, 1)


def figures(runs: int) -> dict[str, float]:
    """Return the figures by name."""
    said = CURRENT | {"gen_ai.input.messages": "x" * 400, "gen_ai.output.messages": "y" * 400, "server.port": 443}
    document = traces([span(number + 1, attributes=said) for number in range(SPANS)], {"service.name": "shop"})
    text, packed = body_of(document), body_of(document, "protobuf")
    maker, caller = EventMaker(Directories([]), ""), Caller("", "ingest", "acme", True)
    now_us = time.time_ns() // 1_000

    def to_events() -> None:
        for call in read_traces(text, "json").calls:
            maker.make(Call(call.place, call.fields), caller, now_us)

    return {
        "json_us_per_span": best_us(lambda: read_traces(text, "json"), runs),
        "protobuf_us_per_span": best_us(lambda: read_traces(packed, "protobuf"), runs),
        "json_to_avro_us_per_span": best_us(to_events, max(1, runs // 10)),
        "json_format_us_per_span": best_us(
            lambda: json_format.Parse(text, ExportTraceServiceRequest()), max(1, runs // 20)
        ),
    }


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.otlp", description=__doc__)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    chosen = parser.parse_args()
    found = figures(chosen.runs)
    if chosen.json:
        sys.stdout.write(json.dumps(found) + "\n")
    else:
        for name, value in found.items():
            sys.stdout.write(f"{name.replace('_', ' '):28} {value:8.1f}\n")
        sys.stdout.write(f"{'goal for json':28} {GOAL_US:8.1f}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
