"""What ClickHouse says of the ledger: its rows page by page, voids, declared gaps, and coverage of the source log."""

import io
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import polars as pl

from tollmeter.admin.verify.count import IDENTITY, Difference
from tollmeter.admin.verify.sources import SourceMap, spans
from tollmeter.schemas.event import EPOCH
from tollmeter.sinks.clickhouse.client import ClickHouse
from tollmeter.sinks.clickhouse.queries import load, moment

LEDGER_SCHEMA = pl.Schema(
    {
        "event_id": pl.String(),
        "event_time": pl.Datetime("us", "UTC"),
        "org_id": pl.String(),
        "src_partition": pl.UInt16(),
        "src_offset": pl.Int64(),
        "revision": pl.UInt16(),
        "status": pl.String(),
        "cost_nano": pl.Int64(),
        "priced_partition": pl.UInt16(),
        "priced_offset": pl.Int64(),
    }
)
PAGE_ROWS = 500_000
IDS_ASKED = 5_000
_END = datetime(2299, 1, 1, tzinfo=EPOCH.tzinfo)
"""Behind the last time that the column can hold."""


def pages(client: ClickHouse) -> Iterator[tuple[datetime, datetime]]:
    """Cut event time into pieces of about PAGE_ROWS stored rows: the table is ordered by it."""
    begin, rows = EPOCH, 0
    for row in client.query(load("verify_minutes")):
        if rows and rows + row["rows"] > PAGE_ROWS:
            yield begin, row["minute"]
            begin, rows = row["minute"], 0
        rows += row["rows"]
    yield begin, _END


def rows_of(client: ClickHouse, page: tuple[datetime, datetime], since: datetime) -> pl.DataFrame:
    """Return the ledger rows of a page that arrived at `since` or later."""
    wanted = {"from": moment(page[0]), "until": moment(page[1]), "since": moment(since)}
    return _frame(client.arrow(load("verify_rows"), wanted))


def by_id(client: ClickHouse, ids: Sequence[str]) -> pl.DataFrame:
    """Return the ledger rows of some ids."""
    parts = (list(ids[begin : begin + IDS_ASKED]) for begin in range(0, len(ids), IDS_ASKED))
    found = [_frame(client.arrow(load("verify_by_id"), {"ids": part})) for part in parts]
    return pl.concat([pl.DataFrame(schema=LEDGER_SCHEMA), *found])


def _frame(data: bytes) -> pl.DataFrame:
    rows = pl.read_ipc_stream(io.BytesIO(data)).with_columns(pl.col("org_id", "status").cast(pl.String))
    return rows.select(list(LEDGER_SCHEMA)).cast(LEDGER_SCHEMA)


def voids(client: ClickHouse) -> pl.DataFrame:
    """Return the identities that were taken out of the ledger on purpose."""
    rows = client.query(load("verify_voids"))
    schema = {name: LEDGER_SCHEMA[name] for name in IDENTITY}
    return pl.DataFrame([[row[name] for name in IDENTITY] for row in rows], schema=schema, orient="row")


def declared_gaps(client: ClickHouse) -> list[dict[str, Any]]:
    """Return the parts of the logs that were gone before they were read, as the stages declared them."""
    return client.query(load("verify_gaps"))


def coverage_gaps(client: ClickHouse, sources: SourceMap) -> list[Difference]:
    """Name source records that no stored record of coverage speaks of."""
    found = []
    intervals: dict[int, list[tuple[int, int]]] = {}
    for row in client.query(load("verify_coverage")):
        intervals.setdefault(row["source_partition"], []).append((row["first_offset"], row["last_offset"]))
    for number, begin, end in sources.bounds():
        at, holes = begin, []
        for first, until in [*intervals.get(number, []), (end, end)]:
            if at < min(first, end):
                holes += sources.holding(number, at, min(first, end) - 1)
            at = max(at, until + 1)
        if holes:
            found.append(
                Difference("coverage_gap", f"source partition {number}", len(holes), f"offsets {spans(holes)}")
            )
    return found


def log_start(client: ClickHouse, priced_begin: Mapping[int, int]) -> dict[int, int]:
    """Return from where on the log of priced rows is whole, per source partition, where retention has cut it.

    Of a target cut at some offset the rows of a source are complete from the first record on that speaks of it.
    """
    cut = {number: begin for number, begin in priced_begin.items() if begin > 0}
    start: dict[int, int] = {}
    for number, begin in cut.items():
        for row in client.query(load("verify_log_start"), {"partition": number, "begin": begin}):
            source = row["source_partition"]
            start[source] = max(start.get(source, 0), row["first_offset"])
    return start


def delete(client: ClickHouse, rows: pl.DataFrame) -> None:
    """Delete these identities, whatever version of them is stored."""
    for begin in range(0, rows.height, IDS_ASKED):
        part = rows[begin : begin + IDS_ASKED]
        first, last = part["event_time"].min(), part["event_time"].max()
        assert isinstance(first, datetime)
        assert isinstance(last, datetime)
        wanted = {
            "from": moment(first),
            "until": moment(last + timedelta(microseconds=1)),
            "ids": part["event_id"].to_list(),
            "times": part["event_time"].dt.epoch("us").to_list(),
            "orgs": part["org_id"].to_list(),
        }
        client.command(load("verify_delete"), wanted)
