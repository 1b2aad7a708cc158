"""`python -m benchmarks.record`: what `UsageProducer.record` costs its caller, back to back and at a steady pace.

The broker is away, so everything goes to the spool: the dearest case. The pace is kept by spinning, not by sleeping,
so that the caller's caches stay as warm as those of a service at work.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.measure import quantile
from tollmeter.producers.client.client import UsageProducer

CALL = {"provider": "openai", "model_sent": "gpt-4o", "org_id": "acme", "user_id": "ann", "tags": {"a": "b"}}
NOWHERE = "127.0.0.1:9"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.record", description=__doc__)
    parser.add_argument("--calls", type=int, default=5_000)
    parser.add_argument("--rate", type=int, default=1_000, help="calls per second of the paced run [1000]")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    chosen = parser.parse_args()
    figures = {"calls": chosen.calls, "rate": chosen.rate}
    with tempfile.TemporaryDirectory() as folder:
        for name, pause_ns in (("back_to_back", 0), ("paced", 1_000_000_000 // chosen.rate)):
            took = times(Path(folder), chosen.calls, pause_ns)
            for share, label in ((0.5, "p50"), (0.99, "p99")):
                figures[f"{name}_{label}_us"] = round(quantile(took, share) / 1_000, 1)
    if chosen.json:
        sys.stdout.write(json.dumps(figures) + "\n")
    else:
        sys.stdout.writelines(f"{name:24} {value}\n" for name, value in figures.items())
    return 0


def times(folder: Path, calls: int, pause_ns: int) -> list[int]:
    """Return what each call took, nanoseconds."""
    took = []
    with UsageProducer(NOWHERE, service="benchmark", spool_dir=folder, queue_size=2 * calls) as producer:
        for number in range(calls):
            began = time.perf_counter_ns()
            producer.record(**CALL, input_tokens=number, output_tokens=9)
            took.append(time.perf_counter_ns() - began)
            while time.perf_counter_ns() < began + pause_ns:
                pass
    return took


if __name__ == "__main__":
    sys.exit(main())
