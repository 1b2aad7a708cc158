"""The benchmark's own arithmetic: quantiles, CPU per event, and plain prices that are the price book's to the nano."""

import os
import time
from pathlib import Path

import numpy as np
import pytest

from benchmarks.anomalies import WARM_UP, episodes, interval, spikes
from benchmarks.limit import decoded, folded, merged, priced, rate_table
from benchmarks.measure import CpuMark, TooLateError, cpu_seconds, descendants, quantile, rss_mb, wait_for
from benchmarks.plain_rates import costs, dumps, loads, rates_of_day
from tollmeter.settings import Settings
from tollmeter.streams.price.book.book import load
from tollmeter.streams.rules.pricing.model_names import Names
from tollmeter.streams.rules.pricing.price_one import Call, price_one
from tollmeter.traffic.company import company
from tollmeter.traffic.fields import fields_of
from tollmeter.traffic.stream import Wire

linux = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="no /proc: not Linux")


@pytest.mark.parametrize(
    ("values", "share", "expected"),
    [
        pytest.param([5], 0.99, 5, id="one"),
        pytest.param([3, 1, 2], 0.5, 2, id="median"),
        pytest.param(range(1, 101), 0.95, 95, id="p95-of-100"),
        pytest.param(range(1, 101), 0.99, 99, id="p99-of-100"),
        pytest.param(range(1, 11), 0.99, 10, id="p99-of-10-is-the-worst"),
        pytest.param([1, 2], 1.0, 2, id="all"),
        pytest.param([1, 2], 0.0, 1, id="none"),
    ],
)
def test_quantile(values: list[float], share: float, expected: float) -> None:
    assert quantile(values, share) == expected


def test_quantile_of_nothing_is_an_error() -> None:
    with pytest.raises(ValueError, match="no values"):
        quantile([], 0.5)


def test_cpu_per_event() -> None:
    before, after = CpuMark(0.0, {"price": 1.0, "ledger": 0.5}), CpuMark(9.0, {"price": 3.0, "ledger": 0.5})
    assert before.per_event_us(after, 100_000) == {"price": 20.0, "ledger": 0.0}


@linux
def test_this_process_is_measured() -> None:
    before, until = cpu_seconds(os.getpid()), time.monotonic() + 5
    while cpu_seconds(os.getpid()) == before:
        assert time.monotonic() < until, "CPU time of a busy process did not grow"
    assert rss_mb(os.getpid()) > 10
    assert descendants(os.getpid())[0] == os.getpid()


def test_waiting_ends() -> None:
    assert wait_for("a zero", lambda: 0 == 0, 1) is True
    with pytest.raises(TooLateError, match="a miracle did not happen"):
        wait_for("a miracle", lambda: False, 0.01, pause=0.001)


@pytest.mark.parametrize("day", [20_779, 20_780, 0], ids=["a Sunday", "a Monday", "today"])
def test_plain_prices_are_those_of_the_book(day: int) -> None:
    """Each call of a day's traffic: the dict that plain Faust uses against the row-by-row definition."""
    settings = Settings()
    day = day or int(time.time()) // 86_400
    rates, planner = loads(dumps(rates_of_day(settings, day))), load(settings).planner
    wire = Wire(company(3, 8), 3_000, day * 86_400_000_000, 86_399_000_000, leak="both")
    known = 0
    for calls in wire.traffic.blocks():
        for event in fields_of(wire.company, calls):
            names = Names(*(event[name] for name in Names._fields))
            tokens = (
                event["input_tokens"],
                event["cache_read_tokens"],
                event["cache_write_tokens"],
                event["cache_write_1h_tokens"],
                event["output_tokens"],
                event["reasoning_tokens"],
            )
            call = Call(event["occurred_at"], event["status"], tokens, event["extra_units"])
            amounts = price_one(planner.plan(names), call)
            expected = None if amounts.cost_nano is None else (amounts.cost_nano, list(amounts.components))
            assert costs(rates, event) == expected, event
            known += expected is not None
    assert known > 2_500


def test_the_reader_without_framework_prices_like_plain_faust() -> None:
    """Whatever it gives a price has that of the dict, call by call; it leaves out what is not one price per token."""
    rates = rates_of_day(Settings(), 20_780)
    wire = Wire(company(3, 8), 3_000, 20_780 * 86_400_000_000, 86_399_000_000, leak="both")
    rows = priced(decoded([value for _at, values in wire.blocks() for value in values]), rate_table(rates))
    known = rows.filter(rows["cost_nano"].is_not_null())
    for event in known.iter_rows(named=True):
        plain = costs(rates, {**event, "extra_units": {}})
        assert plain is not None
        assert plain[0] == event["cost_nano"], event
    assert known.height > 2_000
    windows, halves = folded(rows), [folded(rows[:1_000]), folded(rows[1_000:])]
    order = ["org_id", "kind", "name", "start"]
    assert merged([merged(halves[:1]), *halves[1:]]).sort(order).equals(windows.sort(order))
    assert windows["calls"].sum() == 2 * rows.height
    assert windows["cost_nano"].sum() == 2 * rows["cost_nano"].sum()


def test_episodes_of_findings_and_the_interval_of_a_share() -> None:
    found = [(WARM_UP - 1, 3), (WARM_UP, 1), (WARM_UP + 35, 2), (WARM_UP + 90, 2)]
    assert (episodes(found), episodes(found, 2), episodes(found, 3)) == (
        [WARM_UP, WARM_UP + 90],
        [WARM_UP + 35, WARM_UP + 90],
        [],
    )
    assert interval(8, 8)[0] == pytest.approx(0.676, abs=0.001)
    assert interval(0, 0) == [0.0, 1.0]


def test_a_dear_hour_begins_in_the_window_that_crosses() -> None:
    cost = np.full(18, 10**9)
    cost[13:15] = 9 * 10**9
    assert spikes(cost) == [(14, 2)]
