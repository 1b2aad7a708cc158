"""Every call of a period, oldest first, page by page, so that a year needs no more memory than a day."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import NamedTuple

from tollmeter.admin.reports.asked import Asked
from tollmeter.admin.reports.labels import name_keys
from tollmeter.admin.reports.rows import Row, plain
from tollmeter.sinks.clickhouse.client import ClickHouse
from tollmeter.sinks.clickhouse.queries import load, moment

PAGE = 5_000


class Position(NamedTuple):
    """The call that a page begins behind."""

    time: datetime
    org: str
    id: str


START = Position(datetime(1970, 1, 1, tzinfo=UTC), "", "00000000-0000-0000-0000-000000000000")


def page(ledger: ClickHouse, asked: Asked, after: Position) -> tuple[list[Row], Position | None]:
    """Return a page of calls, their keys named, and what the next one begins behind; None: this was the last."""
    place = {"after_time": moment(after.time), "after_org": after.org, "after_id": after.id}
    rows = ledger.query(load("export"), {**asked.parameters(), **place, "page": PAGE})
    following = None
    if len(rows) == PAGE:
        following = Position(rows[-1]["event_time"], rows[-1]["org_id"], str(rows[-1]["event_id"]))
    return name_keys(ledger, rows, asked.orgs), following


def pages(ledger: ClickHouse, asked: Asked) -> Iterator[list[Row]]:
    """Yield the pages that hold calls."""
    after: Position | None = START
    while after is not None:
        rows, after = page(ledger, asked, after)
        if rows:
            yield rows


def cells(row: Row) -> Row:
    """Return a row for CSV: times in UTC, maps as JSON, exact amounts as they are."""
    return {name: _cell(value) for name, value in row.items()}


def _cell(value: object) -> object:
    if isinstance(value, datetime):
        return plain({"": value})[""]
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict) else value
