"""`python -m benchmarks.queued`: CPU per event of `POST /ingest` in batches, from the body to the queue, in process.

The whole body at once beside the same one event by event, by turns in one run: reading, ids, checks, bytes, duplicates
and the answer; without sockets and without Kafka. The least of several rounds, in processor time.
"""

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any
from uuid import uuid4

from tollmeter.server.auth import Caller, TrackingToken
from tollmeter.server.counters import Counters
from tollmeter.server.door import Door, Durable, Posted
from tollmeter.server.doors import ingest
from tollmeter.server.events import EventMaker
from tollmeter.server.ingest import Ingest
from tollmeter.server.remembered import Remembered

BATCH, BODIES = 100, 100
CALLER = Caller("bench", "ingest", "acme", may_set_identity=True)
BARE = {"model_sent": "gpt-4o", "input_tokens": 1_000, "output_tokens": 200, "user_id": "ann"}
FULL = BARE | {
    "service": "shop",
    "provider": "openai",
    "org_id": "acme",
    "group_id": "web",
    "api_key_id": "0a1b2c3d4e5f6071",
    "status": "OK",
    "http_status": 200,
    "latency_ms": 840,
    "usage_source": "PROVIDER",
    "cache_read_tokens": 400,
    "stream": True,
    "model_used": "gpt-4o-2024-08-06",
    "tags": {"team": "search"},
}


class Nobody:
    """Knows neither keys nor tokens."""

    active_tokens, loaded = 0, True

    def caller(self, secret: str) -> Caller | None:
        return None

    def token(self, value: str) -> TrackingToken | None:
        return None


class Queue:
    """Takes what is written, and keeps nothing."""

    async def write(self, bodies: Sequence[bytes]) -> Durable:
        return "kafka"


def body_of(kind: str) -> bytes:
    if kind == "four_fields":
        return json.dumps([BARE] * BATCH).encode()
    if kind == "four_fields_and_id":
        return json.dumps([BARE | {"event_id": uuid4().hex} for _ in range(BATCH)]).encode()
    now_us = time.time_ns() // 1_000
    own = [{"event_id": str(uuid4()), "occurred_at": now_us, "request_id": uuid4().hex} for _ in range(BATCH)]
    return json.dumps([FULL | one | {"input_tokens": 500 + at} for at, one in enumerate(own)]).encode()


async def cpu_us(door: Door, kind: str) -> float:
    """Return microseconds of processor time per event."""
    queue: Any = Queue()
    whole = Ingest(EventMaker(Nobody(), "pepper"), Remembered(), queue, Counters())
    posted = Posted({"content-type": "application/json"}, {}, b"")
    bodies = [body_of(kind) for _ in range(BODIES)]

    async def ask(body: bytes) -> None:
        async def receive() -> dict[str, object]:
            return {"type": "http.request", "body": body, "more_body": False}

        await whole.answer(door, receive, posted, CALLER, 1 << 22, "r")

    began = time.process_time()
    for body in bodies:
        await ask(body)
    return (time.process_time() - began) / BODIES / BATCH * 1e6


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.queued", description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    chosen = parser.parse_args()
    [door] = (one for one in ingest.DOORS if one.path == "/ingest")
    ways = {"at_once": door, "one_by_one": replace(door, columns=None)}
    figures: dict[str, dict[str, float]] = {}
    for kind in ("four_fields", "four_fields_and_id", "twenty_fields"):
        rounds = [{way: asyncio.run(cpu_us(one, kind)) for way, one in ways.items()} for _ in range(chosen.rounds)]
        figures[kind] = {way: round(min(one[way] for one in rounds), 2) for way in ways}
    if chosen.json:
        sys.stdout.write(json.dumps(figures) + "\n")
    else:
        sys.stdout.writelines(f"{kind:20} {took}\n" for kind, took in figures.items())
    return 0


if __name__ == "__main__":
    sys.exit(main())
