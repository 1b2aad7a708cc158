"""Real workers and a real broker for tests: start, send, read, and what an operator may do to topics."""

import asyncio
import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, TypeVar

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic, RecordsToDelete
from aiokafka.structs import OffsetAndMetadata

from tests.forkserver import ForkServer
from tests.patience import Patience
from tollmeter.embedded.environment import settings_environment
from tollmeter.schemas import topics
from tollmeter.schemas.record import Headers
from tollmeter.settings import Settings

Value = TypeVar("Value")
Sent = tuple[int, bytes, Headers]
"""Partition, value and headers of a record."""


class Worker:
    """One worker process of a stage, with its log and the address of its health checks."""

    def __init__(self, server: ForkServer, arguments: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
        self.log, self._health, self._ready = log, log.with_suffix(".health"), log.with_suffix(".ready")
        files = {"TOLLMETER_HEALTH_FILE": str(self._health), "TOLLMETER_READY_FILE": str(self._ready)}
        with log.open("wb") as out:
            self.process = server.start(arguments, {**environment, **files}, stdout=out)

    @property
    def ready(self) -> bool:
        """Whether it has its partitions."""
        return self._ready.exists()

    @property
    def text(self) -> str:
        return self.log.read_text(encoding="utf-8")

    def ask(self, path: str) -> tuple[int, str]:
        """Return status and body of a health check."""
        port = int(self._health.read_text(encoding="ascii"))
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
                return int(answer.status), answer.read().decode()
        except urllib.error.HTTPError as refused:
            with refused:
                return refused.code, refused.read().decode()

    def problems(self, path: str = "/readyz") -> list[str]:
        """Return what a health check complains about."""
        found: list[str] = json.loads(self.ask(path)[1])["problems"]
        return found

    def metric(self, name: str, **labels: str) -> float | None:
        """Return the sum of a metric's series with these labels, None when there is none."""
        wanted = [f'{label}="{value}"' for label, value in labels.items()]
        lines = [
            line
            for line in self.ask("/metrics")[1].splitlines()
            if line.partition("{")[0].partition(" ")[0] == name and all(part in line for part in wanted)
        ]
        return sum(float(line.rpartition(" ")[2]) for line in lines) if lines else None


class Workers:
    """The workers of a line. `workers(stage)` starts one, `workers.ready(stage, ...)` waits until they work."""

    def __init__(self, server: ForkServer, line: Settings, folder: Path) -> None:
        self._server, self._line, self._folder = server, line, folder
        self._running: list[Worker] = []

    def __call__(self, stage: str, line: Settings | None = None) -> Worker:
        """Start a worker of a stage, without waiting, on the line or on one with other settings."""
        return self.start(stage, "worker", stage, line=line)

    def start(self, name: str, *arguments: str, line: Settings | None = None, **more: str) -> Worker:
        """Start a command that runs until it is stopped; `more` is added to its environment."""
        environment = {**os.environ, **settings_environment(line or self._line), "POLARS_MAX_THREADS": "1", **more}
        log = self._folder / f"{name}-{len(self._running)}.log"
        self._running.append(Worker(self._server, arguments, environment, log))
        return self._running[-1]

    def ready(self, *stages: str, line: Settings | None = None) -> list[Worker]:
        """Start one worker of each stage and return them when all have their partitions."""
        started = [self(stage, line) for stage in stages]
        patience = Patience(120)
        while waiting := [worker for worker in started if not worker.ready]:
            for worker in waiting:
                assert worker.process.poll() is None, worker.text
                assert not patience.ended(), worker.text
            time.sleep(0.05)
        return started

    def close(self) -> None:
        """Kill what still runs."""
        for worker in self._running:
            worker.process.kill()
        for worker in self._running:
            worker.process.wait()


def run(work: Coroutine[Any, Any, Value]) -> Value:
    return asyncio.run(work)


def send(line: Settings, topic: str, records: list[Sent], transaction: str = "") -> None:
    """Send records one after the other, or all in one transaction of this name."""

    async def work() -> None:
        options = {"transactional_id": transaction} if transaction else {}
        producer = AIOKafkaProducer(**line.kafka_options(), **options)
        await producer.start()
        try:
            async with producer.transaction() if transaction else nullcontext():
                for partition, value, headers in records:
                    await producer.send_and_wait(line.topic(topic), value, partition=partition, headers=headers)
        finally:
            await producer.stop()

    run(work())


def read(line: Settings, topic: str, partitions: int = 4) -> list[Any]:
    """Return every record of a topic."""

    async def work() -> list[Any]:
        consumer = AIOKafkaConsumer(**line.kafka_options(), enable_auto_commit=False)
        await consumer.start()
        try:
            tps = [TopicPartition(line.topic(topic), number) for number in range(partitions)]
            consumer.assign(tps)
            await consumer.seek_to_beginning(*tps)
            ends = await consumer.end_offsets(tps)
            found: list[Any] = []
            while any([await consumer.position(tp) < ends[tp] for tp in tps]):
                for records in (await consumer.getmany(timeout_ms=500)).values():
                    found += records
            return found
        finally:
            await consumer.stop()

    return run(work())


def alerts(line: Settings, kind: str) -> list[dict[str, Any]]:
    """Return the alerts of a kind, repeated ones included."""
    events = [json.loads(record.value) for record in read(line, topics.ALERTS)]
    return [event for event in events if event["data"]["kind"] == kind]


def commit(line: Settings, stage: str, topic: str, offsets: dict[int, int]) -> None:
    """Commit offsets for a stage that does not run."""

    async def work() -> None:
        consumer = AIOKafkaConsumer(**line.kafka_options(), group_id=line.group(stage), enable_auto_commit=False)
        await consumer.start()
        try:
            tps = {TopicPartition(line.topic(topic), number): offset for number, offset in offsets.items()}
            consumer.assign(list(tps))
            await consumer.commit({tp: OffsetAndMetadata(offset, "") for tp, offset in tps.items()})
        finally:
            await consumer.stop()

    run(work())


def committed(line: Settings, stage: str, topic: str, partitions: int = 4) -> dict[int, int]:
    """Return the offsets that a stage has committed, 0 where it has none."""

    async def work() -> dict[int, int]:
        consumer = AIOKafkaConsumer(**line.kafka_options(), group_id=line.group(stage), enable_auto_commit=False)
        await consumer.start()
        try:
            tps = [TopicPartition(line.topic(topic), number) for number in range(partitions)]
            return {tp.partition: await consumer.committed(tp) or 0 for tp in tps}
        finally:
            await consumer.stop()

    return run(work())


async def _with_admin(line: Settings, work: Callable[[AIOKafkaAdminClient], Awaitable[None]]) -> None:
    admin = AIOKafkaAdminClient(**line.kafka_options())
    try:
        await admin.start()
        await work(admin)
    finally:
        await admin.close()


def delete_records(line: Settings, topic: str, before: dict[int, int]) -> None:
    """Delete the records below an offset, as retention would."""
    wanted = {
        TopicPartition(line.topic(topic), number): RecordsToDelete(before_offset=offset)
        for number, offset in before.items()
    }

    async def work(admin: AIOKafkaAdminClient) -> None:
        await admin.delete_records(wanted)

    run(_with_admin(line, work))


def recreate(line: Settings, topic: str, partitions: int = 4) -> None:
    """Delete a topic and make it again under the same name."""
    name = line.topic(topic)
    fresh = NewTopic(name, partitions, 1, topic_configs={"message.timestamp.type": "LogAppendTime"})

    async def work(admin: AIOKafkaAdminClient) -> None:
        await admin.delete_topics([name])
        while True:
            answer = await admin.create_topics([fresh])
            if answer.topic_errors[0][1] == 0:
                return
            await asyncio.sleep(0.05)

    run(_with_admin(line, work))


def add_partitions(line: Settings, topic: str, count: int) -> None:
    """Raise the partition count of a topic."""

    async def work(admin: AIOKafkaAdminClient) -> None:
        await admin.create_partitions({line.topic(topic): NewPartitions(count)})

    run(_with_admin(line, work))
