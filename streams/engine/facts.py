"""What the consumer of an app says about itself, for health checks and metrics; read from another thread."""

from collections.abc import Mapping
from typing import Protocol, TypeVar

from faust.types import TP

from tollmeter.streams.engine.consumer import AccountableConsumer
from tollmeter.streams.engine.health import Facts
from tollmeter.streams.engine.metrics import PartitionFacts

_Key = TypeVar("_Key")
_Value = TypeVar("_Value")


class Rebalancing(Protocol):
    """What is asked of Faust's app itself."""

    rebalancing: bool


def facts(app: Rebalancing) -> Facts | None:
    """Return what the app's consumer does; None before it exists."""
    consumer = _consumer(app)
    if consumer is None:
        return None
    held = dict(consumer.held)
    heads = [queue[0].arrived_at for tp, queue in _copy(consumer._inflight) if queue and tp not in held]
    return Facts(
        polled_at=consumer.polled_at,
        busy=consumer.busy or not consumer.flow_active or app.rebalancing,
        settled=consumer.settled,
        oldest_at=min(heads, default=None),
        paused={f"{tp.topic}/{tp.partition}": why for tp, why in held.items()},
    )


def partitions(app: object, now: float, monotonic_now: float) -> dict[tuple[str, int], PartitionFacts]:
    """Return the facts of each assigned partition. `now` in seconds since 1970."""
    consumer = _consumer(app)
    if consumer is None:
        return {}
    return {
        (tp.topic, tp.partition): _partition(consumer, tp, done, now, monotonic_now)
        for tp, done in _copy(consumer._done)
    }


def assignments(app: object) -> int:
    """Return how often partitions were assigned since this process began."""
    consumer = _consumer(app)
    return consumer.assignments if consumer is not None else 0


def _partition(consumer: AccountableConsumer, tp: TP, done: int, now: float, monotonic_now: float) -> PartitionFacts:
    waiting = list(consumer._inflight[tp]) if tp in consumer._inflight else []
    lag = max(0, (consumer.highwater(tp) or 0) - done)
    oldest = waiting[0].value[0].timestamp / 1000 if waiting else consumer.done_at.get(tp, now)
    return PartitionFacts(
        lag_events=lag,
        lag_seconds=max(0.0, now - oldest) if lag else 0.0,
        commit_age_seconds=monotonic_now - waiting[0].arrived_at if waiting else 0.0,
        buffer_records=sum(len(message.value) for message in waiting),
        buffer_bytes=sum(message.size for message in waiting),
        paused=tp in consumer.held,
    )


def _consumer(app: object) -> AccountableConsumer | None:
    consumer = getattr(app, "_consumer", None)
    return consumer if isinstance(consumer, AccountableConsumer) else None


def _copy(mapping: Mapping[_Key, _Value]) -> list[tuple[_Key, _Value]]:
    """Return the items; the loop's thread may be changing them, and then the next try finds them whole."""
    while True:
        try:
            return list(mapping.items())
        except RuntimeError:
            continue
