"""Calls are kept for so many days: what is missing of a time before them is no change, and no call that nobody made."""

import re
from datetime import datetime, timedelta

from tollmeter.sinks.clickhouse.client import ClickHouse
from tollmeter.sinks.clickhouse.queries import load


def kept_from(client: ClickHouse, now: datetime) -> datetime | None:
    """Return from when on no call was deleted for its age; None: none was yet, the ledger is younger than that.

    Calls that were brought in later than they were made are kept as long as if they had been made then. Raises
    `Unavailable`.
    """
    edge, (row,) = _edge(client, now), client.query(load("kept"))
    return edge if edge is not None and row["begun"] < edge else None


def kept_within(client: ClickHouse, since: datetime, now: datetime) -> datetime | None:
    """Return from when on no call was deleted, for a period that begins before it; None: nothing of it was deleted.

    Raises `Unavailable`.
    """
    edge = _edge(client, now)
    return None if edge is None or since >= edge else kept_from(client, now)


def _edge(client: ClickHouse, now: datetime) -> datetime | None:
    """Return how old a call may become; None where calls are kept for ever."""
    (made,) = client.query("SHOW CREATE TABLE usage_events")
    days = re.search(r"toIntervalDay\((\d+)\)|INTERVAL (\d+) DAY", made["statement"])
    return now - timedelta(days=int(days[1] or days[2])) if days else None
