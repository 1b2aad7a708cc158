"""The alerts on the log, each with the time between the event that caused it and the alert's own append."""

import math
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from aiokafka import TopicPartition

from tollmeter.admin.verify.position import reader
from tollmeter.broker.client import read_all
from tollmeter.schemas import topics
from tollmeter.schemas.json_values import loads
from tollmeter.settings import Settings

Raised = tuple[dict[str, Any], float]
"""A CloudEvent and its delay in seconds."""


async def read_alerts(settings: Settings, partitions: int) -> list[Raised]:
    """Return every alert on the topic, in order of the events that caused them, once each."""
    found: dict[str, Raised] = {}
    topic = settings.topic(topics.ALERTS)
    async with reader(settings) as consumer:
        bounds = [TopicPartition(topic, number) for number in range(partitions)]
        async for record in read_all(consumer, bounds):
            event = loads(record.value or b"")
            caused = datetime.fromisoformat(event["time"]).timestamp()
            # The first append counts: after a restart an alert may be sent again with the same id.
            found.setdefault(event["id"], (event, record.timestamp / 1000 - caused))
    return sorted(found.values(), key=lambda raised: (raised[0]["time"], raised[0]["id"]))


def percentile(values: Sequence[float], share: float) -> float | None:
    """Return the smallest value that `share` of the values do not exceed (nearest rank); None of nothing."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else None
