"""ClickHouse goes away for longer than the poll interval, and workers are told to stop under traffic: nothing is lost.

The scenarios of `benchmarks.outage` and `benchmarks.stops` in short.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.outage import run_outage
from benchmarks.stops import run_stops
from tollmeter.admin import setup as provision
from tollmeter.embedded.jars import MissingToolError
from tollmeter.embedded.stack import Stack
from tollmeter.settings import Settings

pytestmark = pytest.mark.stack


@pytest.fixture
def own_stack(tmp_path: Path) -> Iterator[Stack]:
    """A stack whose ClickHouse may be killed; a consumer that does not fetch for six seconds leaves its group."""
    wanted = Settings(
        kafka="127.0.0.1:0",
        clickhouse="http://127.0.0.1:0",
        poll_interval_s=6.0,
        session_timeout_s=6.0,
        checkpoint_s=1.0,
    )
    try:
        with Stack(tmp_path, workers=(), settings=wanted) as stack:
            provision.apply(stack.settings)
            yield stack
    except MissingToolError as missing:
        pytest.skip(str(missing))


@pytest.mark.parametrize(("minutes", "times"), [(0.2, 1), pytest.param(0.35, 2, marks=pytest.mark.nightly)])
def test_an_outage_beyond_the_poll_interval_and_stops_under_traffic(
    own_stack: Stack, minutes: float, times: int
) -> None:
    figures = run_outage(own_stack, minutes=minutes, rate=200, warm_s=3, timeout_s=120)
    assert figures["lost"] == 0
    assert figures["windows_equal_ledger"]
    assert (figures["rebalances"], figures["restarts"]) == (0, 0)
    assert figures["unready_in_outage"]
    assert figures["alive_in_outage"]
    assert figures["alerts_in_outage"] >= 1
    stops = run_stops(own_stack, times=times, rate=200, timeout_s=120)
    assert max(stops["longest_stop_s"].values()) < 10
    assert stops["windows_equal_ledger"]
    assert stops["priced_records_stored_twice"] == stops["source_rows_priced_twice"] == 0
