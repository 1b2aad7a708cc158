"""The server's counters as Prometheus reads them. Labels are path, fate, code and status: never a key, IP or user."""

import time
from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric, SummaryMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.registry import Collector

from tollmeter.schemas.escapes import one_line
from tollmeter.server.counters import Counters
from tollmeter.server.parts import Parts

_NAME = "tollmeter_server"


class _ServerCollector(Collector):
    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def collect(self) -> Iterator[Metric]:
        counters, writer = self._parts.counters, self._parts.writer
        yield _counted("events", "Calls by door and fate", ("door", "fate"), counters.events.items())
        yield _counted(
            "rejected", "Calls that were not taken, by door and code", ("door", "code"), counters.rejected.items()
        )
        yield _counted(
            "ignored", "Entries that are no call, by door and reason", ("door", "reason"), counters.ignored.items()
        )
        yield _counted("problems", "Requests that were refused", ("status", "code"), counters.problems.items())
        yield _counted("requests", "Requests by status", ("status",), [((n,), c) for n, c in counters.answers.items()])
        where = [((place,), count) for place, count in counters.durable.items()]
        yield _counted("durable", "Acknowledged calls by where they were then", ("place",), where)
        yield _one_counter("bad_auth", "Requests to a door without a key that may send", counters.bad_auth)
        yield _one_counter(
            "identity_ignored", "Calls whose user, group or organisation was not believed", counters.identity_ignored
        )
        yield from _gen_ai(counters)
        yield GaugeMetricFamily(f"{_NAME}_spooled_events", "Calls that wait on disk", writer.spooled)
        yield GaugeMetricFamily(f"{_NAME}_kafka_up", "1 while the broker can be reached", float(not writer.problem))
        up_s = time.time() - self._parts.started_at
        yield GaugeMetricFamily(f"{_NAME}_uptime_seconds", "Age of this process", up_s)


def _gen_ai(counters: Counters) -> Iterator[Metric]:
    """Yield what OpenTelemetry names so, as sums and counts: of calls that this server stored, as their senders say."""
    text = "Tokens of stored calls whose usage is known"
    family = SummaryMetricFamily("gen_ai_client_token_usage", text, labels=("gen_ai_token_type",))
    for kind in ("input", "output"):
        family.add_metric([kind], counters.metered, counters.tokens[kind])
    yield family
    name, text = "gen_ai_client_operation_duration_seconds", "Time of stored calls that say how long they took"
    yield SummaryMetricFamily(name, text, counters.timed, counters.took_ms / 1_000)


def _counted(
    name: str, text: str, labels: tuple[str, ...], counts: Iterable[tuple[tuple[object, ...], int]]
) -> CounterMetricFamily:
    family = CounterMetricFamily(f"{_NAME}_{name}", text, labels=labels)
    for values, count in sorted(counts, key=str):
        family.add_metric([one_line(value) for value in values], count)
    return family


def _one_counter(name: str, text: str, count: int) -> CounterMetricFamily:
    return CounterMetricFamily(f"{_NAME}_{name}", text, value=count)


def wanted(accept: str) -> bool:
    """Tell whether a scraper asks: it names a text format, and no browser's page."""
    return "text/plain" in accept or "application/openmetrics-text" in accept


def expose(parts: Parts, accept: str) -> tuple[str, bytes]:
    """Return content type and text, in the format that is asked for."""
    registry = CollectorRegistry()
    registry.register(_ServerCollector(parts))
    if "application/openmetrics-text" in accept:
        return openmetrics.CONTENT_TYPE_LATEST, bytes(openmetrics.generate_latest(registry))  # type: ignore[no-untyped-call]
    return CONTENT_TYPE_LATEST, generate_latest(registry)
