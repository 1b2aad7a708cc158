"""`python -m benchmarks.neighbours`: how late sound events are beside records that are none, as hostile as they come.

The same steady traffic runs twice through one line: alone, and while records of every hostile kind are written into the
source topic. What is told is the delay from sending an event to its row, and by how much the neighbours make it worse.
"""

import argparse
import asyncio
import json
import random
import sys
import threading
import time
from typing import Any, NamedTuple

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError
from rich.console import Console

from benchmarks.delays import Live
from benchmarks.line import wait_settled
from benchmarks.measure import TooLateError, quantile, wait_for
from benchmarks.pipeline import fresh_stack
from benchmarks.poison import dead_letters
from benchmarks.preload import preload
from tollmeter.broker.layout import ProvisionError
from tollmeter.embedded.jars import EmbeddedError
from tollmeter.schemas import topics
from tollmeter.settings import Settings
from tollmeter.sinks.clickhouse.client import connect

GOAL_S = 2.0
PARTITIONS = 4
START_S = 600.0
BLANKS = b" " * 60_000_000
err = Console(stderr=True, highlight=False)


class Hostile(NamedTuple):
    """One record: its compression, key, value and headers."""

    codec: str
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes]]


def kinds(rng: random.Random) -> list[Hostile]:
    """Return one record of each kind: sizes, bombs, headers, forged letters, lies about lengths, depth."""
    junk = rng.randbytes(800_000)
    return [
        Hostile("", b"k", junk, []),
        Hostile("", junk, b"x", []),
        Hostile("zstd", b"k", BLANKS, []),
        Hostile("gzip", b"k", BLANKS, []),
        Hostile("lz4", b"k", BLANKS[:5_000_000], []),
        Hostile("", b"k", b"x", [("h", junk)]),
        Hostile("", b"k", b"x", [(f"h{number}", b"") for number in range(5_000)]),
        Hostile("", b"k", b"x", [("kind", b"control"), ("format", b"999")]),
        Hostile("", b"k", b"x", [("attempts", b"abc"), ("first_source", b"x")]),
        Hostile("", b"k", None, []),
        Hostile("", None, b"", []),
        Hostile("", None, b"[" * 60_000, []),
        Hostile("", None, b"\xc3\x01" + b"\xff" * 40, []),
    ]


class Attack:
    """Writes hostile records to every partition, one after another, until it is stopped."""

    def __init__(self, settings: Settings, pause_s: float) -> None:
        self._settings, self._pause_s = settings, pause_s
        self._over = threading.Event()
        self.sent = 0
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name="attack", daemon=True)

    def __enter__(self) -> "Attack":
        self._thread.start()
        return self

    def __exit__(self, *_about: object) -> None:
        self._over.set()
        self._thread.join(120)

    async def _run(self) -> None:
        every, number = kinds(random.Random(7)), 0
        while not self._over.is_set():
            await self._write(every[number % len(every)], number % PARTITIONS)
            number += 1
            await asyncio.sleep(self._pause_s)

    async def _write(self, record: Hostile, partition: int) -> None:
        producer = AIOKafkaProducer(
            **self._settings.kafka_options(),
            compression_type=record.codec or None,
            max_request_size=1 << 30,
            max_batch_size=1 << 30,
        )
        await producer.start()
        try:
            topic = self._settings.topic(topics.EVENTS)
            more: dict[str, Any] = {"key": record.key, "headers": record.headers, "partition": partition}
            await producer.send_and_wait(topic, record.value, **more)
            self.sent += 1
        except KafkaError:  # the broker refuses it for its size: no record, no harm
            return
        finally:
            await producer.stop()


def run(rate: int, seconds: int, pause_s: float) -> dict[str, Any]:
    """Measure both. Raises `TooLateError` when a row stays away or a hostile record is no dead letter."""
    with fresh_stack() as stack:
        for stage in ("price", "ledger", "watch"):
            stack.start_worker(stage)
        loaded = preload(stack.settings, 1_000, 600)  # what is made at the first event is made then
        clickhouse = connect(stack.settings)
        wait_settled(clickhouse, loaded, START_S)
        clickhouse.close()
        alone = Live(stack.settings, rate, seconds).run()
        with Attack(stack.settings, pause_s) as attack:
            beside = Live(stack.settings, rate, seconds).run()
        wait_for("the dead letters", lambda: dead_letters(stack.settings).total() >= attack.sent, 60)
        sent = attack.sent
    worse_s = quantile(beside, 0.99) - quantile(alone, 0.99)
    return {
        "rate": rate,
        "seconds": seconds,
        "hostile_records": sent,
        "alone": _told(alone),
        "beside_hostile": _told(beside),
        "worse_p99_s": round(worse_s, 2),
        "worse_max_s": round(max(beside) - max(alone), 2),
        "goal_s": GOAL_S,
    }


def _told(delays: list[float]) -> dict[str, float]:
    told = {"p50_s": quantile(delays, 0.5), "p99_s": quantile(delays, 0.99), "max_s": max(delays)}
    return {name: round(value, 2) for name, value in told.items()}


def main() -> int:
    """Measure; 2 when that is not possible here or something went astray."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.neighbours", description=__doc__)
    parser.add_argument("--rate", type=int, default=500, help="sound events a second [500]")
    parser.add_argument("--seconds", type=int, default=60, help="of each of the two runs [60]")
    parser.add_argument("--pause", type=float, default=0.25, help="seconds between hostile records [0.25]")
    parser.add_argument("--quick", action="store_true", help="everything small: shows that it works")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    chosen = parser.parse_args()
    rate, seconds = (100, 10) if chosen.quick else (chosen.rate, chosen.seconds)
    began = time.monotonic()
    try:
        figures = run(rate, seconds, chosen.pause)
    except (EmbeddedError, ProvisionError, TooLateError) as error:
        err.print(f"benchmarks: {error}", markup=False, soft_wrap=True)
        return 2
    if chosen.json:
        sys.stdout.write(json.dumps(figures) + "\n")
        return 0
    for name in ("alone", "beside_hostile"):
        told = ", ".join(f"{key.removesuffix('_s')} {value:.2f} s" for key, value in figures[name].items())
        Console().print(f"{name.replace('_', ' ')}: {told}", highlight=False)
    Console().print(
        f"{figures['hostile_records']:,} hostile records among {rate * seconds:,} events made the 99th percentile "
        f"{figures['worse_p99_s']:.2f} s later, the latest {figures['worse_max_s']:.2f} s (goal: {GOAL_S:.0f} s "
        f"at most); {time.monotonic() - began:.0f} s in all",
        highlight=False,
        soft_wrap=True,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
