"""Calls are kept for so many days: what is missing of a time before them is no change, and no call that nobody made."""

from datetime import datetime, timedelta

from tollmeter.sinks.clickhouse.client import ClickHouse
from tollmeter.sinks.clickhouse.queries import load


def kept_from(client: ClickHouse, now: datetime) -> datetime | None:
    """Return from when on no call was deleted for its age; None: none was yet, the ledger is younger than that.

    Calls that were brought in later than they were made are kept as long as if they had been made then. Raises
    `Unavailable`.
    """
    (row,) = client.query(load("kept"))
    edge = now - timedelta(days=row["days"])
    return edge if row["days"] and row["begun"] < edge else None
