"""What another process sees of a running stack, and how it ends it: by the supervisor's files and signals alone."""

import asyncio
import os
import signal
import subprocess
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from aiokafka import TopicPartition
from aiokafka.errors import KafkaError

from tollmeter import stacks
from tollmeter.broker.client import kafka_admin, kafka_consumer, quiet
from tollmeter.embedded.kafka import cluster_id
from tollmeter.producers.client import spool
from tollmeter.producers.client.client import state_folder
from tollmeter.schemas.topics import EVENTS
from tollmeter.settings import Settings

_GRACE_S = 60.0
_TIMEOUT_MS = 5_000


def down(data_dir: Path) -> bool:
    """Stop the stack of this folder and return when it is gone; False when none ran."""
    document = stacks.running(data_dir)
    if document is None:
        return False
    for number, grace_s in ((signal.SIGTERM, _GRACE_S), (signal.SIGKILL, 5.0)):
        with suppress(ProcessLookupError):
            os.kill(document["pid"], number)
        deadline = time.monotonic() + grace_s
        while time.monotonic() < deadline:
            if stacks.running(data_dir) is None and not _alive(document["pid"]):
                return True
            time.sleep(0.05)
    raise TimeoutError(f"the stack on {data_dir} (pid {document['pid']}) does not stop")


def _alive(pid: int) -> bool:
    """Tell whether a process runs; one that has ended and that nobody has waited for does not."""
    try:
        os.kill(pid, 0)
        return "State:\tZ" not in Path("/proc", str(pid), "status").read_text()
    except FileNotFoundError:
        return not Path("/proc/self").exists()  # it ended just now, or this system has no /proc
    except (ProcessLookupError, PermissionError):
        return False


def processes(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return a row a process: name, pid, whether it is up, memory, restarts; the supervisor first."""
    rows = [{"name": "supervisor", "pid": document["pid"], "up": True, "restarts": 0}]
    rows += [{"name": name, **fields} for name, fields in document["processes"].items()]
    memory = _rss_mb(row["pid"] for row in rows)
    return [{**row, "rss_mb": memory.get(row["pid"])} for row in rows]


def _rss_mb(pids: Iterable[int]) -> dict[int, int]:
    """Return resident memory by pid; a process that has ended has none."""
    listed = ",".join(map(str, pids))
    if not Path("/proc/self/statm").exists():
        shown = subprocess.run(["ps", "-o", "pid=,rss=", "-p", listed], capture_output=True, text=True, check=False)
        return {int(pid): int(kib) // 1024 for pid, kib in map(str.split, shown.stdout.splitlines())}
    found = {}
    for pid in listed.split(","):
        with suppress(OSError):
            pages = int(Path("/proc", pid, "statm").read_text().split()[1])
            found[int(pid)] = pages * os.sysconf("SC_PAGE_SIZE") >> 20
    return found


def waiting_events(settings: Settings, data_dir: Path) -> tuple[Path | None, int, int]:
    """Return the folder where this user's services keep events while a broker is away, and how many wait there.

    First those for this stack, then those for others, among them those of services that have never reached one.
    """
    chosen = settings.spool_dir or state_folder()
    folder = Path(chosen) if chosen else None
    if folder is None:
        return None, 0, 0
    found, topic = spool.waiting(folder), settings.topic(EVENTS)
    ours = (spool.cluster_name(cluster_id(data_dir / "kafka"), topic), spool.target_name(settings.kafka, topic))
    here = sum(found.get(target, 0) for target in ours)
    return folder, here, sum(found.values()) - here


def lag(settings: Settings, stages: Iterable[str]) -> dict[str, int | None]:
    """Return how many records each stage has yet to commit; None where the broker does not say."""
    quiet()
    try:
        return asyncio.run(_lag(settings, tuple(stages)))
    except (KafkaError, OSError, TimeoutError):
        return dict.fromkeys(stages)


async def _lag(settings: Settings, stages: tuple[str, ...]) -> dict[str, int | None]:
    if not stages:
        return {}
    async with kafka_admin(settings, _TIMEOUT_MS) as admin, kafka_consumer(settings, _TIMEOUT_MS) as consumer:
        result: dict[str, int | None] = {}
        for stage in stages:
            committed = await admin.list_consumer_group_offsets(settings.group(stage))
            ends = await consumer.end_offsets([TopicPartition(*partition) for partition in committed])
            behind = [max(0, ends[at] - max(0, committed[at].offset)) for at in committed]
            result[stage] = sum(behind) if behind else None
        return result
