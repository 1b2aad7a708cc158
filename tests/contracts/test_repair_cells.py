"""What a repair is made of, on a real engine: days and months added up equal plain sums of the ledger's rows.

A day or a month that is not the sum of its parts is counted from the rows, and right afterwards.
"""

import random
from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl
import pytest

from tests.effort import examples
from tests.priced_rows import insert, row
from tollmeter.settings import Settings
from tollmeter.sinks.clickhouse.client import ClickHouse, connect
from tollmeter.streams.rules.windows.totals import MEASURES, PEAKS, bucket_at, bucket_start_s
from tollmeter.streams.watch.ledger_totals import repair_cells

pytestmark = pytest.mark.stack

FIRST = datetime(2026, 9, 28, tzinfo=UTC)
SPAN_S, HORIZON_S = 6 * 86_400, 3_600
WINDOW = ("level", "bucket", "org_id", "scope", "name", "priced_partition", "stamp", *MEASURES, *PEAKS)
Cell = tuple[str, int, str, str]


@pytest.fixture
def ledger(ledger_settings: Settings) -> Iterator[ClickHouse]:
    client = connect(ledger_settings)
    for table in ("usage_events", "usage_windows"):
        client.command(f"TRUNCATE TABLE {table}")
    yield client
    client.close()


def made(rng: random.Random, number: int, at: datetime, revision: int = 0) -> dict[str, Any]:
    received = at + timedelta(seconds=1)
    return row(
        number,
        event_time=at,
        received_at=received,
        revision=revision,
        org_id="o" if number % 5 else "other",
        user_id=rng.choice(["", "ann", "bob"]),
        model_used=rng.choice(["m", "n"]),
        status=rng.choice(["OK", "OK", "ERROR", "VOID"]) if revision else "OK",
        cost_nano=rng.choice([None, 0, 7, 10**12]),
        input_tokens=rng.randrange(1_000),
    )


def plain(rows: list[dict[str, Any]], level: str) -> dict[Cell, tuple[int, int, int]]:
    """Calls, input tokens and cost of each cell of one organisation."""
    found: dict[Cell, list[int]] = defaultdict(lambda: [0, 0, 0])
    for one in rows:
        if one["org_id"] != "o" or one["status"] == "VOID":
            continue
        bucket = bucket_at(level, int(one["event_time"].timestamp()))
        for scope, name in (("org", ""), ("user", one["user_id"]), ("model", one["model_id"])):
            if scope == "org" or name:
                cell = found[level, bucket, scope, name]
                for place, value in enumerate((1, one["input_tokens"], one["cost_nano"] or 0)):
                    cell[place] += value
    return {cell: (values[0], values[1], values[2]) for cell, values in found.items()}


def live(ledger: ClickHouse, level: str) -> dict[Cell, tuple[int, int, int]]:
    sql = "SELECT level, bucket, scope, name, calls, input_tokens, cost_nano FROM usage_windows FINAL"
    rows = ledger.query(f"{sql} WHERE level = {{level:String}} AND scope IN ('org', 'user', 'model')", {"level": level})
    return {
        (level, bucket_at(level, int(one["bucket"].timestamp())), one["scope"], one["name"]): (
            one["calls"],
            one["input_tokens"],
            one["cost_nano"],
        )
        for one in rows
        if any((one["calls"], one["input_tokens"], one["cost_nano"]))
    }


def repaired(ledger: ClickHouse, hours: tuple[int, ...], stamp: int) -> pl.DataFrame:
    """Compute a repair of long after, store its cells as WATCH does when it has folded them; return them."""
    watermark_s = int((FIRST + timedelta(days=60)).timestamp())
    cells = repair_cells(ledger, "o", hours, watermark_s, HORIZON_S)
    assert cells["absolute"].all()
    assert not cells.select("level", "bucket", "scope", "name").is_duplicated().any()
    ledger.insert_rows("usage_windows", WINDOW, [_window(one, stamp) for one in cells.iter_rows(named=True)])
    return cells


def _window(one: dict[str, Any], stamp: int) -> tuple[object, ...]:
    start = datetime.fromtimestamp(bucket_start_s(one["level"], one["bucket"]), UTC)
    return one["level"], start, "o", one["scope"], one["name"], 0, stamp, *(one[name] for name in MEASURES), 0, 0


def hour_of(at: datetime) -> int:
    return int(at.timestamp()) // 3_600


def equal(ledger: ClickHouse, rows: list[dict[str, Any]]) -> None:
    for level in ("minute", "hour", "day", "month"):
        assert live(ledger, level) == plain(rows, level), level


@pytest.mark.parametrize("seed", range(examples(1)))
def test_windows_equal_plain_sums_after_every_repair(ledger: ClickHouse, seed: int) -> None:
    rng = random.Random(seed)
    rows = {number: made(rng, number, FIRST + timedelta(seconds=rng.randrange(SPAN_S))) for number in range(1, 250)}
    insert(ledger, list(rows.values()), offset=1)
    hours = sorted({hour_of(one["event_time"]) for one in rows.values()})
    for begin in range(0, len(hours), 24):
        repaired(ledger, tuple(hours[begin : begin + 24]), begin + 1)
    equal(ledger, list(rows.values()))
    for stamp in range(1_000, 1_004):
        changed = rng.sample(sorted(rows), 12)
        again = [made(rng, number, rows[number]["event_time"], rows[number]["revision"] + 1) for number in changed]
        insert(ledger, again, offset=stamp)
        rows |= dict(zip(changed, again, strict=True))
        repaired(ledger, tuple({hour_of(one["event_time"]) for one in again}), stamp)
        equal(ledger, list(rows.values()))


@pytest.mark.parametrize("level", ["day", "month"])
def test_a_window_that_was_wrong_is_counted_anew(ledger: ClickHouse, level: str) -> None:
    """What `verify --repair` asks for: the hours are right, and so is nothing above them."""
    rng = random.Random(7)
    rows = [made(rng, number, FIRST + timedelta(hours=number)) for number in range(1, 100)]
    insert(ledger, rows, offset=1)
    repaired(ledger, tuple(hour_of(one["event_time"]) for one in rows), 1)
    right = live(ledger, level)
    wrong = [
        (level, datetime.fromtimestamp(bucket_start_s(level, bucket), UTC), "o", scope, name, 0, 2, *([5] * 14), 0, 0)
        for _, bucket, scope, name in right
        if scope == "user"
    ]
    ledger.insert_rows("usage_windows", WINDOW, [*wrong, (*wrong[0][:4], "nobody", *wrong[0][5:])])
    assert live(ledger, level) != right
    repaired(ledger, tuple(hour_of(one["event_time"]) for one in rows), 3)
    equal(ledger, rows)


def test_what_is_added_up_reads_the_repaired_hours_alone(ledger: ClickHouse) -> None:
    """Rows of another hour of the same day that WATCH never had stay out: its own repair brings them."""
    rng = random.Random(3)
    rows = [made(rng, number, FIRST + timedelta(hours=2, minutes=number)) for number in range(1, 20)]
    unseen = [made(rng, 100 + number, FIRST + timedelta(hours=9, minutes=number)) for number in range(1, 20)]
    insert(ledger, [*rows, *unseen], offset=1)
    repaired(ledger, (hour_of(FIRST) + 2,), 1)
    equal(ledger, rows)
    repaired(ledger, (hour_of(FIRST) + 9,), 2)
    equal(ledger, [*rows, *unseen])
