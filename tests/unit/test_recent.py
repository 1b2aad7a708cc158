"""The live view beside plain sums: any split into batches, resends, old imports, unknown costs."""

import random
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl
import pytest

from tests.priced_rows import SCHEMA, event_id, row
from tollmeter.streams.rules.windows.dimensions import DIMENSIONS, KEPT_S, STEP_S
from tollmeter.streams.rules.windows.recent import ACROSS, COLUMNS, MEASURES, Recent

NOW = datetime(2026, 11, 29, 12, 0, 3, tzinfo=UTC)
NOW_S = NOW.timestamp()


def calls(count: int = 200, seed: int = 3) -> list[dict[str, Any]]:
    rng = random.Random(seed)
    found = []
    for number in range(count):
        at = NOW - timedelta(seconds=rng.random() * 2 * KEPT_S)
        state = rng.choice(("OK", "OK", "OK", "BLOCKED", "ERROR", "UNKNOWN"))
        found.append(
            row(
                number,
                event_time=at,
                received_at=at + timedelta(seconds=rng.choice((0, 1, -30))),
                src_partition=number % 3,
                org_id=rng.choice(("acme", "umbra")),
                api_key_id=rng.choice(("k1", "k2", "")),
                model=rng.choice(("gpt-4o", "o3")),
                user_id=f"u{number % 7}",
                client_ip=f"10.0.0.{number % 5}",
                status="OK" if state == "UNKNOWN" else state,
                price_status={"UNKNOWN": "UNKNOWN_MODEL", "ERROR": "NO_USAGE"}.get(state, "PRICED"),
                cost_nano=rng.randrange(10**9) if state == "OK" else 0 if state == "BLOCKED" else None,
                at_risk_nano=5 if state == "UNKNOWN" else None,
                input_tokens=rng.randrange(1_000),
                output_tokens=rng.randrange(100),
            )
        )
    return found


def frame(rows: list[dict[str, Any]]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=SCHEMA).select(COLUMNS)


def plain(rows: list[dict[str, Any]], by: str, window_s: int) -> dict[tuple[str, str], dict[str, int]]:
    """Add up by hand: steps of five seconds that end with that of `NOW`."""
    column, found = DIMENSIONS[by], {}
    for one in rows:
        step = int(min(one["event_time"], one["received_at"]).timestamp()) // STEP_S
        if not int(NOW_S) // STEP_S - window_s // STEP_S < step <= int(NOW_S) // STEP_S:
            continue
        sums = found.setdefault(("" if by in ACROSS else one["org_id"], one[column]), dict.fromkeys(MEASURES, 0))
        nothing = one["status"] == "ERROR" and one["price_status"] == "NO_USAGE"
        sums["calls"] += 1
        sums["refused"] += one["status"] == "BLOCKED"
        sums["errors"] += one["status"] == "ERROR"
        sums["unpriced"] += one["cost_nano"] is None and not nothing
        for name in ("input_tokens", "output_tokens", "cost_nano", "at_risk_nano"):
            sums[name] += one[name] or 0
    return found


@pytest.mark.parametrize("batch", [17, 400])
@pytest.mark.parametrize("by", ["key", "model", "user", "ip", "org"])
@pytest.mark.parametrize("window_s", [60, 3_600])
def test_sums_are_those_of_a_plain_loop(batch: int, by: str, window_s: int) -> None:
    rows, recent = calls(), Recent()
    for begin in range(0, len(rows), batch):
        recent.add(frame(rows[begin : begin + batch]), NOW_S)
    view = recent.top(by, NOW_S, window_s)
    got = {(one["org"], one["name"]): {name: one[name] for name in MEASURES} for one in view.rows}
    wanted = plain(rows, by, window_s)
    assert got == wanted
    assert {name: view.total[name] for name in MEASURES} == {
        name: sum(one[name] for one in wanted.values()) for name in MEASURES
    }
    costs = [one["cost_nano"] for one in view.rows]
    assert costs == sorted(costs, reverse=True)


def test_an_event_that_comes_again_counts_once() -> None:
    recent = Recent()
    one = row(1, event_time=NOW, received_at=NOW, org_id="acme", cost_nano=7, price_status="PRICED", status="OK")
    for _ in range(3):
        recent.add(frame([one, one]), NOW_S)
    recent.add(frame([{**one, "event_id": event_id(2)}]), NOW_S)
    assert recent.top("org", NOW_S, 60).total["cost_nano"] == 14


def test_it_is_as_old_as_its_slowest_partition() -> None:
    recent = Recent()
    assert recent.as_of_ms is None
    recent.tick({0: 1_000, 1: 5_000})
    recent.tick({0: 900})
    assert recent.as_of_ms == 1_000
    recent.add(frame([row(1, event_time=NOW, received_at=NOW, src_partition=0, status="OK")]), NOW_S)
    assert recent.as_of_ms == 5_000


def test_an_hour_is_kept_and_no_more() -> None:
    recent = Recent()
    for number in range(100):
        at = NOW + timedelta(minutes=number)
        made = row(number, event_time=at, received_at=at, status="OK", cost_nano=1, price_status="PRICED")
        recent.add(frame([made]), at.timestamp())
    assert sum(part.height for part in recent.sums["key"]) <= 61 + 32
    assert recent.seen.height <= 12
    assert recent.top("key", at.timestamp(), KEPT_S).total["calls"] == 60
