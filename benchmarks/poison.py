"""`python -m benchmarks.poison`: malformed records among sound ones, spread and clustered: their cost, their place.

Each of three loads runs through a line of its own: none malformed, spread evenly, and in runs of a thousand, as one
broken producer sends them. All malformed records must be dead letters with a reason, all others in the ledger.
"""

import argparse
import asyncio
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from rich.console import Console
from rich.table import Table

from benchmarks.line import WrongError, run_line
from benchmarks.measure import TooLateError
from benchmarks.pipeline import fresh_stack
from benchmarks.preload import ORGS, QUIET_S, SEED, Loaded
from tollmeter.broker.layout import ProvisionError
from tollmeter.embedded.jars import EmbeddedError
from tollmeter.producers.imports.publish import publish
from tollmeter.schemas import codec, topics
from tollmeter.settings import Settings
from tollmeter.streams.rules.events.decode_avro import REASONS
from tollmeter.traffic.company import company
from tollmeter.traffic.poison import poison
from tollmeter.traffic.stream import Wire

SPAN_S = 2_700
WAIT_S = 1_800.0
CLUSTER = 1_000
LOADS = ("clean", "spread", "clustered")
GOAL = 0.4
err = Console(stderr=True, highlight=False)


@dataclass(frozen=True, slots=True)
class Load:
    """How many records, how many of them malformed, and whether those come in clusters."""

    records: int
    malformed: int
    clustered: bool

    @property
    def sound(self) -> int:
        return self.records - self.malformed


def places(load: Load, rng: random.Random) -> list[int]:
    """Return before which sound record each malformed one stands, ascending."""
    if not load.clustered:
        return sorted(rng.randrange(load.sound) for _ in range(load.malformed))
    size = min(CLUSTER, max(1, load.malformed // 2))
    starts = sorted(rng.randrange(load.sound) for _ in range(-(-load.malformed // size)))
    return [start for start in starts for _ in range(size)][: load.malformed]


def mixed(load: Load, wire: Wire, rng: random.Random) -> Iterator[list[bytes]]:
    """Yield the records in blocks."""
    where, at, passed = places(load, rng), 0, 0
    bad: Iterator[bytes] | None = None
    for _due, values in wire.blocks():
        if bad is None:
            bad = poison(values[0], codec.decode_body(values[0][len(codec.SINGLE_OBJECT_HEADER) :]), rng)
        block: list[bytes] = []
        for value in values:
            while at < len(where) and where[at] == passed:
                block.append(next(bad))
                at += 1
            block.append(value)
            passed += 1
        yield block


def fill(settings: Settings, load: Load, seed: int) -> Loaded:
    """Send the load; return what sound events it holds."""
    started = time.monotonic()
    end_us = (int(time.time()) - QUIET_S) * 1_000_000
    wire = Wire(company(SEED, ORGS), load.sound, end_us - SPAN_S * 1_000_000, SPAN_S * 1_000_000, duplicates=0.0)
    sent = asyncio.run(publish(settings, mixed(load, wire, random.Random(seed))))
    if sent != load.records:
        raise WrongError(f"{sent} records were sent instead of {load.records}")
    tokens_in = tokens_out = 0
    for calls in wire.traffic.blocks():  # drawn again from the seed, without the encoder
        tokens_in += int(calls.input.sum())
        tokens_out += int(calls.output.sum())
    return Loaded(load.sound, load.sound, tokens_in, tokens_out, time.monotonic() - started)


def dead_letters(settings: Settings, partitions: int = 4) -> Counter[str]:
    """Return how many source records are dead letters, by reason; each counts once."""
    return asyncio.run(_dead_letters(settings, partitions))


async def _dead_letters(settings: Settings, partitions: int) -> Counter[str]:
    consumer = AIOKafkaConsumer(**settings.kafka_options(), enable_auto_commit=False)
    await consumer.start()
    reasons: dict[tuple[bytes, bytes], str] = {}
    try:
        tps = [TopicPartition(settings.topic(topics.DLQ), number) for number in range(partitions)]
        consumer.assign(tps)
        await consumer.seek_to_beginning(*tps)
        ends = await consumer.end_offsets(tps)
        while any([await consumer.position(tp) < ends[tp] for tp in tps]):
            for records in (await consumer.getmany(timeout_ms=500)).values():
                for record in records:
                    headers = dict(record.headers)
                    place = headers["source_partition"], headers["source_offset"]
                    reasons[place] = headers["reason"].decode()
    finally:
        await consumer.stop()
    return Counter(reasons.values())


def measure(load: Load, seed: int) -> dict[str, Any]:
    """Run one load. Raises `WrongError` when a record is not where it belongs."""
    with fresh_stack() as stack:
        loaded = fill(stack.settings, load, seed)
        result = run_line(stack, loaded, WAIT_S)
        letters = dead_letters(stack.settings)
    if letters.total() != load.malformed or not set(letters) <= set(REASONS):
        raise WrongError(f"{load.malformed} malformed records were sent, the dead letters hold {dict(letters)}")
    return {
        "records": load.records,
        "malformed": load.malformed,
        "dead_letters": letters.total(),
        "in_ledger": load.sound,
        "events_per_second": round(result.events_per_second),
        "cpu_us_per_event": round(sum(result.cpu_us_per_event.values()), 1),
        "price_cpu_us_per_event": result.cpu_us_per_event["price"],
        "reasons": dict(sorted(letters.items())),
    }


def run(records: int, malformed: int, seed: int, rounds: int) -> dict[str, Any]:
    """Run the three loads in turn, so often, and compare the medians of what they took."""
    all_: dict[str, list[dict[str, Any]]] = {name: [] for name in LOADS}
    for number, name in enumerate(LOADS * rounds):
        err.print(f"{name}: {records:,} records")
        load = Load(records, 0 if name == "clean" else malformed, name == "clustered")
        found = measure(load, seed + number // len(LOADS))
        all_[name].append(found)
        err.print(
            f"    {found['events_per_second']:,} events/s, {found['cpu_us_per_event']} µs of CPU an event, "
            f"{found['dead_letters']:,} dead letters"
        )
    figures = {name: {**several[-1], **_medians(several)} for name, several in all_.items()}
    clean = figures["clean"]
    shares = {
        f"{name}_share": round(figures[name]["events_per_second"] / clean["events_per_second"], 2) for name in LOADS[1:]
    }
    by_cpu = {
        f"{name}_share_by_cpu": round(clean["cpu_us_per_event"] / figures[name]["cpu_us_per_event"], 2)
        for name in LOADS[1:]
    }
    return {"rounds": rounds, **figures, **shares, **by_cpu}


def _medians(several: Sequence[dict[str, Any]]) -> dict[str, float]:
    names = ("events_per_second", "cpu_us_per_event", "price_cpu_us_per_event")
    return {name: round(median(found[name] for found in several), 1) for name in names}


def main() -> int:
    """Measure; 2 when that is not possible here or a record went astray."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.poison", description=__doc__)
    parser.add_argument("--records", type=int, default=1_000_000, help="of each load [1000000]")
    parser.add_argument("--malformed", type=int, default=10_000, help="among them [10000]")
    parser.add_argument("--seed", type=int, default=1, help="places and kinds of the malformed ones [1]")
    parser.add_argument("--rounds", type=int, default=1, help="how often the loads run in turn; medians count [1]")
    parser.add_argument("--quick", action="store_true", help="everything small: shows that it works")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    chosen = parser.parse_args()
    records, malformed = (20_000, 400) if chosen.quick else (chosen.records, chosen.malformed)
    if not 0 < malformed < records:
        err.print("benchmarks: --malformed must be more than 0 and less than --records")
        return 2
    try:
        figures = run(records, malformed, chosen.seed, chosen.rounds)
    except (EmbeddedError, ProvisionError, TooLateError, WrongError) as error:
        err.print(f"benchmarks: {error}", markup=False, soft_wrap=True)
        return 2
    if chosen.json:
        sys.stdout.write(json.dumps(figures) + "\n")
    else:
        show(figures)
    return 0


def show(figures: dict[str, Any]) -> None:
    """Print the three loads side by side."""
    table = Table(title=f"goal: at least {GOAL:.0%} of the clean rate", title_justify="left")
    for name in (
        "load",
        "records",
        "dead letters",
        "in the ledger",
        "events/s",
        "of clean",
        "CPU µs/event",
        "of clean",
        "PRICE µs/event",
    ):
        table.add_column(name, justify="left" if name == "load" else "right")
    for name in LOADS:
        row = figures[name]
        cells = (f"{row[key]:,}" for key in ("records", "dead_letters", "in_ledger", "events_per_second"))
        share = "" if name == "clean" else f"{figures[f'{name}_share']:.0%}"
        by_cpu = "" if name == "clean" else f"{figures[f'{name}_share_by_cpu']:.0%}"
        cpu = f"{row['cpu_us_per_event']:.1f}", by_cpu, f"{row['price_cpu_us_per_event']:.1f}"
        table.add_row(name, *cells, share, *cpu)
    Console().print(table)


if __name__ == "__main__":
    sys.exit(main())
