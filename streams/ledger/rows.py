"""What LEDGER reads off records beside their rows: counts, coverage of the source log, alerts, declared gaps."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from tollmeter.schemas.priced import H_BOOT, H_PRICE_BOOK, H_ROWS, H_SOURCES

COVERAGE_COLUMNS = (
    "priced_partition",
    "priced_offset",
    "source_partition",
    "first_offset",
    "last_offset",
    "records",
    "rejected",
    "rows",
    "price_book",
    "boot",
)
GAP_COLUMNS = ("stage", "priced_partition", "first_offset", "last_offset", "reason", "topic", "topic_id")
_GAP_KINDS = ("gap", "new_epoch")


def rows_of(event: Any) -> int:
    """Return how many rows a delivery brings, as its headers say."""
    counts = (value for record in event.value for name, value in record.headers if name == H_ROWS)
    return sum(int(count) for count in counts if count.isdigit())


def alert_row(record: Any) -> tuple[str, datetime]:
    """Return an alert as its table stores it: the event as sent, and when the broker appended it."""
    return record.value.decode("utf-8", "replace"), datetime.fromtimestamp(record.timestamp / 1000, tz=UTC)


def gap_row(record: Any) -> tuple[Any, ...] | None:
    """Return the row of an alert that declares offsets as gone; None of any other."""
    try:
        data = json.loads(record.value)["data"]
        if data["kind"] not in _GAP_KINDS:
            return None
        found = (data["stage"], data["partition"], data["first_offset"], max(0, data["last_offset"]), data["kind"])
        return (*found, data["topic"], data["topic_id"])
    except (ValueError, KeyError, TypeError):
        return None  # foreign, but stored among the alerts all the same


def coverage_rows(record: Any, headers: dict[str, bytes]) -> Iterator[tuple[Any, ...]]:
    """Return what a priced record says about the source log, one row for each source partition."""
    book, boot = headers[H_PRICE_BOOK].decode(), headers[H_BOOT].decode()
    for source in json.loads(headers[H_SOURCES]):
        yield (record.partition, record.offset, *source, book, boot)
