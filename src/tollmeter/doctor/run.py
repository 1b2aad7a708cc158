"""All looks, one after the other; what one of them cannot see keeps none of the others from looking."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

from tollmeter import stacks
from tollmeter.doctor.check import Check, judged
from tollmeter.doctor.clickhouse import clickhouse
from tollmeter.doctor.kafka import kafka, lags
from tollmeter.doctor.machine import machine
from tollmeter.embedded import control
from tollmeter.settings import Settings


def examine(settings: Settings, data_dir: Path | None) -> list[Check]:
    """Return what was found; `data_dir` is the folder of the embedded stack, None where there is none."""
    broker = asyncio.run(_kafka(settings))
    follows = lags(settings) if not any(check.state == "wrong" for check in broker) else []
    processes = _processes(data_dir) if data_dir is not None else ()
    return [*machine(settings, data_dir), *processes, *broker, *follows, *clickhouse(settings)]


async def _kafka(settings: Settings) -> list[Check]:
    return [check async for check in kafka(settings)]


def _processes(data_dir: Path) -> Iterator[Check]:
    document = stacks.running(data_dir)
    if document is None:
        yield Check("processes", "warning", f"no stack runs on {data_dir}", "tollmeter up --detach")
        return
    rows = control.processes(document)
    down = [row["name"] for row in rows if not row["up"]]
    often = [f"{row['name']} ({row['restarts']} times)" for row in rows if (row.get("restarts") or 0) >= 5]
    found = f"down: {', '.join(down)}" if down else f"{len(rows)} run"
    yield judged("processes", found, bool(down), f"their logs are in {data_dir / 'logs'}")
    if often:
        do = f"their logs in {data_dir / 'logs'} say why they ended"
        yield Check("restarts", "warning", ", ".join(often), do)
