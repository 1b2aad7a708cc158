"""Kafka in memory: append-only partitions with append time, and groups whose commits are fenced by generation.

A topic may be made anew: it then has another id, and its old logs are kept for the oracle alone.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any, NamedTuple

from faust.types import TP

Headers = Sequence[tuple[str, bytes]]


class Record(NamedTuple):
    """As aiokafka hands out records; `value` may be any object here."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: Any
    headers: Headers


@dataclass(slots=True)
class Log:
    """One partition. `first` is the offset of `records[0]`: retention moves it."""

    tp: TP
    log_id: str = ""
    """The id of the topic that it is part of."""
    first: int = 0
    records: list[Record] = field(default_factory=list)
    history: list[Record] = field(default_factory=list)
    """Every record there ever was; for the oracle."""

    @property
    def end(self) -> int:
        return self.first + len(self.records)

    def delete_before(self, offset: int) -> None:
        """Do what retention does."""
        self.records = self.records[offset - self.first :]
        self.first = offset

    def delete_older(self, timestamp_ms: int) -> None:
        """Do what retention does: records go in the order in which they came."""
        old = sum(1 for _ in takewhile(lambda record: record.timestamp < timestamp_ms, self.records))
        self.delete_before(self.first + old)

    def read(self, offset: int, count: int) -> list[Record]:
        at = max(0, offset - self.first)
        return self.records[at : at + count]


class Broker:
    """`wall_ms` gives the append time, `on_append` is told of every new record, `on_commit` of every commit."""

    def __init__(self, partitions: dict[str, int], wall_ms: Callable[[], int]) -> None:
        self.logs = {
            TP(topic, n): Log(TP(topic, n), f"{topic}-1") for topic, count in partitions.items() for n in range(count)
        }
        self.former: list[Log] = []
        """The logs of topics that were deleted."""
        self._wall_ms = wall_ms
        self.committed: dict[str, dict[TP, int]] = defaultdict(dict)
        self.notes: dict[tuple[str, TP], str] = {}
        """What was committed beside an offset."""
        self.generation: dict[str, int] = defaultdict(int)
        self.on_append: list[Callable[[TP], None]] = []
        self.on_commit: Callable[[str, TP, int, str], None] = lambda group, tp, offset, note: None

    def append(self, topic: str, partition: int, key: bytes | None, value: Any, headers: Headers) -> Record:
        log = self.logs[TP(topic, partition)]
        record = Record(topic, partition, log.end, self._wall_ms(), key, value, headers)
        log.records.append(record)
        log.history.append(record)
        for listener in self.on_append:
            listener(log.tp)
        return record

    def end(self, tp: TP) -> int:
        return self.logs[tp].end

    def commit(self, group: str, generation: int, tp: TP, offset: int, note: str = "") -> bool:
        """Take over a commit of the present generation; one of a former owner is refused."""
        if generation != self.generation[group]:
            return False
        self.on_commit(group, tp, offset, note)
        self.committed[group][tp] = offset
        self.notes[group, tp] = note
        return True

    def topic_id(self, topic: str) -> str:
        return self.logs[TP(topic, 0)].log_id

    def count(self, topic: str) -> int:
        return sum(tp.topic == topic for tp in self.logs)

    def grow(self, topic: str) -> None:
        """Give a topic one more partition."""
        tp = TP(topic, self.count(topic))
        self.logs[tp] = Log(tp, self.topic_id(topic))

    def recreate(self, topic: str, partitions: int) -> None:
        """Delete a topic and make it again; a broker forgets what groups had committed there."""
        number = 2 + len({log.log_id for log in self.former if log.tp.topic == topic})
        for tp in [tp for tp in self.logs if tp.topic == topic]:
            self.former.append(self.logs.pop(tp))
            for offsets in self.committed.values():
                offsets.pop(tp, None)
        for tp in [TP(topic, n) for n in range(partitions)]:
            self.logs[tp] = Log(tp, f"{topic}-{number}")

    def of(self, topic: str) -> list[Log]:
        """Return the logs of a topic, those of today."""
        return [log for tp, log in sorted(self.logs.items()) if tp.topic == topic]

    def ever(self, topic: str) -> list[Log]:
        """Return all logs that the topic had, the oldest first."""
        return [log for log in self.former if log.tp.topic == topic] + self.of(topic)
