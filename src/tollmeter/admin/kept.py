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
    (made,), (row,) = client.query("SHOW CREATE TABLE usage_events"), client.query(load("kept"))
    days = re.search(r"toIntervalDay\((\d+)\)|INTERVAL (\d+) DAY", made["statement"])
    edge = now - timedelta(days=int(days[1] or days[2])) if days else now
    return edge if days and row["begun"] < edge else None
