"""How far behind the line is, asked of what it has stored: the age of the oldest event that one could not see yet."""

import asyncio
import time
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime, timedelta

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from tests.chaos.background import Background
from tests.chaos.line import Line
from tests.chaos.manifest import Manifest
from tollmeter.schemas import topics
from tollmeter.sinks.clickhouse.client import Unavailable
from tollmeter.sinks.clickhouse.queries import moment

EPOCH = datetime.fromisoformat("1970-01-01T00:00:00+00:00")
OVERLAP = timedelta(seconds=20)
LEDGER_FRESH_S, WATCH_FRESH_S = 4.0, 8.0
"""Behind by less, the line has caught up. In quiet times a row takes about one second, a checkpoint three to four; on a
machine where they take longer before the fault, `calibrate` raises the limits."""
LOOK_EVERY_S = 0.4
WARM_S = 40.0
_NEW = """
SELECT toString(event_id) AS event_id, max(inserted_at) AS at
FROM usage_events WHERE inserted_at >= {since:DateTime64(6, 'UTC')} GROUP BY event_id
"""
_TWICE = """
SELECT count() - uniqExact(src_partition, src_offset) AS n
FROM usage_events WHERE inserted_at >= {since:DateTime64(6, 'UTC')}
"""
_APPLIED = "SELECT priced_partition, max(applied) AS applied FROM watch_progress GROUP BY priced_partition"


class Progress:
    """Looks at ledger, checkpoints and memory; keeps the peak."""

    def __init__(self, line: Line, manifest: Manifest, background: Background) -> None:
        self._line, self._manifest, self._background = line, manifest, background
        self._since = EPOCH
        self._ends: deque[tuple[float, Mapping[int, int]]] = deque()
        self._applied: dict[int, int] = {}
        self._consumer = background.call(_consumer(line))
        self._looked_at = 0.0
        self.ledger_fresh_s, self.watch_fresh_s = LEDGER_FRESH_S, WATCH_FRESH_S
        self.stored_twice = 0
        """Most rows at once that repeated a source record: the engine's merges drop them soon."""
        self.peak_mb = 0
        self.peaks_mb: dict[str, int] = {}

    def close(self) -> None:
        self._background.call(self._consumer.stop())

    def look(self) -> None:
        """Take a look; what does not answer is as it was."""
        now = time.monotonic()
        if now < self._looked_at + LOOK_EVERY_S:
            return
        self._looked_at = now
        memory = self._line.memory_mb()
        self.peak_mb = max(self.peak_mb, sum(memory.values()))
        for name, size in memory.items():
            self.peaks_mb[name] = max(size, self.peaks_mb.get(name, 0))
        with suppress(KafkaError, OSError, TimeoutError):
            self._ends.append((now, self._background.call(self._priced_ends(), 5.0)))
        with suppress(Unavailable):
            found = self._line.ledger.query(_NEW, {"since": moment(self._since)})
            twice = self._line.ledger.query(_TWICE, {"since": moment(self._since)})[0]["n"]
            self.stored_twice = max(self.stored_twice, int(twice))
            self._manifest.seen([row["event_id"] for row in found])
            if found:
                self._since = max(row["at"] for row in found) - OVERLAP
            self._applied = {row["priced_partition"]: row["applied"] for row in self._line.ledger.query(_APPLIED)}
        while len(self._ends) > 1 and self._covered(self._ends[1][1]):
            self._ends.popleft()

    def calibrate(self, seconds: float) -> None:
        """Watch the line in peace: twice what it is behind then is no sign of a fault."""
        self.ledger_fresh_s, self.watch_fresh_s = LEDGER_FRESH_S, WATCH_FRESH_S
        until = time.monotonic() + WARM_S
        while self.watch_behind_s() > WATCH_FRESH_S and time.monotonic() < until:
            self.look()
            time.sleep(0.2)
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self.look()
            self.ledger_fresh_s = max(self.ledger_fresh_s, 2 * self.ledger_behind_s())
            self.watch_fresh_s = min(WARM_S, max(self.watch_fresh_s, 2 * self.watch_behind_s()))
            time.sleep(0.2)

    def ledger_behind_s(self) -> float:
        """Return the age of the oldest acknowledged event that the ledger does not hold."""
        oldest = self._manifest.oldest_waiting()
        return 0.0 if oldest is None else time.monotonic() - oldest

    def watch_behind_s(self) -> float:
        """Return how long ago the end of the priced log was taken that checkpoints cover."""
        if not self._ends or not self._covered(self._ends[0][1]):
            return float("inf")
        return time.monotonic() - self._ends[0][0]

    def caught_up(self) -> bool:
        """Tell whether all workers are back and what they store is as fresh as ever."""
        return (
            self.ledger_behind_s() < self.ledger_fresh_s
            and self.watch_behind_s() < self.watch_fresh_s
            and self._line.settled()
        )

    def _covered(self, ends: Mapping[int, int]) -> bool:
        return all(self._applied.get(number, -1) + 1 >= end for number, end in ends.items())

    async def _priced_ends(self) -> Mapping[int, int]:
        tps = [TopicPartition(self._line.settings.topic(topics.PRICED), number) for number in range(4)]
        ends = await asyncio.wait_for(self._consumer.end_offsets(tps), 4.0)
        return {tp.partition: end for tp, end in ends.items()}


async def _consumer(line: Line) -> AIOKafkaConsumer:
    consumer = AIOKafkaConsumer(**line.settings.kafka_options(), enable_auto_commit=False)
    await consumer.start()
    return consumer
