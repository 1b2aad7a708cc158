"""Kafka in memory: append-only partitions with append time, and groups whose commits are fenced by generation."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
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

    def read(self, offset: int, count: int) -> list[Record]:
        at = max(0, offset - self.first)
        return self.records[at : at + count]


class Broker:
    """`wall_ms` gives the append time, `on_append` is told of every new record, `on_commit` of every commit."""

    def __init__(self, partitions: dict[str, int], wall_ms: Callable[[], int]) -> None:
        self.logs = {TP(topic, n): Log(TP(topic, n)) for topic, count in partitions.items() for n in range(count)}
        self._wall_ms = wall_ms
        self.committed: dict[str, dict[TP, int]] = defaultdict(dict)
        self.generation: dict[str, int] = defaultdict(int)
        self.on_append: list[Callable[[TP], None]] = []
        self.on_commit: Callable[[str, TP, int], None] = lambda group, tp, offset: None

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

    def commit(self, group: str, generation: int, tp: TP, offset: int) -> bool:
        """Take over a commit of the present generation; one of a former owner is refused."""
        if generation != self.generation[group]:
            return False
        self.on_commit(group, tp, offset)
        self.committed[group][tp] = offset
        return True

    def of(self, topic: str) -> list[Log]:
        return [log for tp, log in sorted(self.logs.items()) if tp.topic == topic]
