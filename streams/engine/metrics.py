"""The Prometheus metrics of a worker. Labels are topic, partition, stage, reason and table: never a key, IP or user.

The number of series is bounded by the partitions and the code, whatever the traffic holds.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from tollmeter.streams.rules.events.decode_avro import Reject
from tollmeter.streams.rules.windows.state import State

REGISTRY = CollectorRegistry()
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 30, 60)
_ROWS = (1, 10, 100, 1_000, 5_000, 10_000, 20_000, 50_000, 100_000)


def _counter(name: str, text: str, *labels: str) -> Counter:
    return Counter(f"tollmeter_{name}", text, labels, registry=REGISTRY)


def _gauge(name: str, text: str, *labels: str) -> Gauge:
    return Gauge(f"tollmeter_{name}", text, labels, registry=REGISTRY)


def _histogram(name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
    return Histogram(f"tollmeter_{name}", text, labels, buckets=buckets, registry=REGISTRY)


RECEIVED = _counter("events_received_total", "Records read of usage.events", "partition")
INVALID = _counter("events_invalid_total", "Records that are no possible event, by reason", "reason")
UNPRICED = _counter("events_unpriced_total", "Events without a known price")
STORED = _counter("events_stored_total", "Rows inserted, deliveries of the same row included", "table")
DUPLICATE = _counter("events_duplicate_total", "Events sent again under the same id, not summed", "partition")
LATE = _counter("events_late_total", "Events that reach the windows by repair", "partition")
DLQ_EVENTS = _counter("dlq_events_total", "Records sent to usage.dlq", "stage", "reason")
ALERTS = _counter("alerts_total", "Alerts sent, by kind", "reason")
ALERTS_SUPPRESSED = _counter("alerts_suppressed_total", "Alerts not sent since they concern times too long ago")
SINK_SECONDS = _histogram("sink_insert_seconds", "Duration of an insert that succeeded", _SECONDS, "table")
SINK_ROWS = _histogram("sink_insert_rows", "Rows of an insert that succeeded", _ROWS, "table")
SINK_RETRIES = _counter("sink_retries_total", "Inserts that failed and are tried again", "table")
SINK_ERRORS = _counter("sink_errors_total", "Rows that ClickHouse refuses for good", "table")
INGEST_TO_STORED = _histogram("ingest_to_stored_seconds", "Append of a record until it is stored", _SECONDS)
GAP_OFFSETS = _gauge("ledger_gap_offsets", "Offsets that were gone before they were read", "stage", "topic")
STATE_KEYS = _gauge("state_keys", "Scopes in memory", "partition")
STATE_REBUILD = _gauge("state_rebuild_seconds", "Duration of the last load of a partition's state", "partition")
WATERMARK = _gauge("watermark_seconds", "Slowest clock of the source partitions, Unix time", "partition")
BOOK_INFO = _gauge("price_book_info", "1 for the price book in use", "price_book")
VERIFY_SUCCESS = _gauge("verify_last_success_timestamp", "When verify last found no difference, Unix time")
LEDGER_MISSING = _gauge("ledger_missing_events", "Events that verify misses in the ledger")
LEDGER_DUPLICATE = _gauge("ledger_duplicate_events", "Events that verify finds twice in the ledger")


def priced(records: Mapping[int, int], rejects: Iterable[Reject], unpriced: int) -> None:
    """Count a batch of PRICE: records by source partition, what was no event, and what has no price."""
    for partition, count in records.items():
        RECEIVED.labels(str(partition)).inc(count)
    for reject in rejects:
        INVALID.labels(reject.reason).inc()
        DLQ_EVENTS.labels("price", reject.reason).inc()
    UNPRICED.inc(unpriced)


def folded(state: State, before: Mapping[str, int]) -> None:
    """Count what a batch of WATCH brought; `before` = the state's counters before it."""
    partition = str(state.partition)
    DUPLICATE.labels(partition).inc(state.counters["resends"] - before["resends"])
    LATE.labels(partition).inc(state.counters["late_deferred"] - before["late_deferred"])
    STATE_KEYS.labels(partition).set(len(state.scopes))
    watermark = state.watermark_ms()
    if watermark is not None:
        WATERMARK.labels(partition).set(watermark / 1000)


def stored(table: str, rows: int, seconds: float) -> None:
    """Count an insert that succeeded."""
    STORED.labels(table).inc(rows)
    SINK_SECONDS.labels(table).observe(seconds)
    SINK_ROWS.labels(table).observe(rows)


@dataclass(frozen=True, slots=True)
class PartitionFacts:
    """One assigned partition at this moment. Seconds are ages, 0 when nothing waits."""

    lag_events: int
    lag_seconds: float
    commit_age_seconds: float
    buffer_records: int
    buffer_bytes: int
    paused: bool


class WorkerCollector(Collector):
    """Asks the consumer at each scrape; costs the line nothing in between."""

    def __init__(self, stage: str, partitions: Callable[[], Mapping[tuple[str, int], PartitionFacts]]) -> None:
        self._stage, self._partitions = stage, partitions
        self.waits: Callable[[], bool] = lambda: False
        self.assignments: Callable[[], int] = lambda: 0

    def collect(self) -> Iterator[Metric]:
        """Yield the gauges of the assigned partitions, and whether the stage waits for its sink."""
        families = {
            "consumer_lag_events": "Records of the partition that are not committed",
            "consumer_lag_seconds": "Age of the last finished record while others wait",
            "commit_age_seconds": "How long the oldest delivery is uncommitted",
            "buffer_rows": "Records delivered and not committed",
            "buffer_bytes": "Bytes of those",
            "partition_paused": "1 while the partition is paused for good",
        }
        found = self._partitions()
        for name, text in families.items():
            family = GaugeMetricFamily(f"tollmeter_{name}", text, labels=("stage", "topic", "partition"))
            for (topic, partition), facts in sorted(found.items()):
                family.add_metric((self._stage, topic, str(partition)), _value(name, facts))
            yield family
        paused = GaugeMetricFamily("tollmeter_sink_paused", "1 while the stage waits for its sink", labels=("stage",))
        paused.add_metric((self._stage,), float(self.waits()))
        yield paused
        rebalances = CounterMetricFamily("tollmeter_rebalances", "Assignments of partitions", labels=("stage",))
        rebalances.add_metric((self._stage,), self.assignments())
        yield rebalances


def _value(name: str, facts: PartitionFacts) -> float:
    return {
        "consumer_lag_events": facts.lag_events,
        "consumer_lag_seconds": facts.lag_seconds,
        "commit_age_seconds": facts.commit_age_seconds,
        "buffer_rows": facts.buffer_records,
        "buffer_bytes": facts.buffer_bytes,
        "partition_paused": facts.paused,
    }[name]


def expose(collectors: Iterable[Collector] = ()) -> bytes:
    """Return everything in the text format of Prometheus, with these collectors' metrics behind the others."""
    text: bytes = generate_latest(REGISTRY)
    for collector in collectors:
        own = CollectorRegistry()
        own.register(collector)
        text += generate_latest(own)
    return text
