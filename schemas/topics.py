"""Every topic name, and the one rule that sends an organisation to its partition."""

from dataclasses import dataclass
from typing import Literal
from zlib import crc32

EVENTS = "usage.events"
PRICED = "usage.priced"
DLQ = "usage.dlq"
ALERTS = "usage.alerts"
POLICIES = "usage.policies"
PRICES = "usage.prices"
SPEND = "usage.spend"
NOTICES = "usage.notices"
"""The journal of `notify`: state and deliveries of each alert, acknowledgements, mutes."""
REGISTRY = "usage.registry"
"""Keys of the server, tracking tokens, labels of provider keys, keys of bills, costs that no call shows."""

HASH_VERSION = "crc32-1"
LAYOUT_KEY = b"layout"
"""Key in `usage.policies` of the record that fixes the partition counts: {"events": n, "priced": n, "hash": ...}."""

DAY_MS = 86_400_000


@dataclass(frozen=True, slots=True)
class Topic:
    """How a topic is created. `partitions` names the setting that counts them; `retention_ms` -1 = compacted."""

    name: str
    partitions: Literal["events", "priced", "one"]
    retention_ms: int
    append_time: bool = False
    max_message_bytes: int = 1_000_000
    segment_bytes: int | None = None
    """Size from which on a compacted topic is cleaned; without it only what is a week old or a gigabyte is."""


TOPICS = (
    Topic(EVENTS, "events", 7 * DAY_MS, append_time=True),
    Topic(PRICED, "priced", 7 * DAY_MS, append_time=True),
    Topic(DLQ, "events", 30 * DAY_MS, append_time=True, max_message_bytes=1_100_000),
    Topic(ALERTS, "priced", 30 * DAY_MS, append_time=True),
    Topic(POLICIES, "one", -1),
    Topic(PRICES, "one", -1, max_message_bytes=8_000_000),
    Topic(SPEND, "one", -1, segment_bytes=16 * 1024 * 1024),
    Topic(NOTICES, "one", -1),
    Topic(REGISTRY, "one", -1, append_time=True, segment_bytes=16 * 1024 * 1024),
)


def org_partition(org_id: str, partitions: int) -> int:
    """Return the partition of `usage.priced` that owns an organisation: crc32 of the UTF-8 name, modulo the count."""
    return crc32(org_id.encode()) % partitions
