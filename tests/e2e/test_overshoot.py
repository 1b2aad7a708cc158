"""Ten processes hammer one budget of 1.00 USD on the real line: they exceed it by no more than was computed."""

import pytest

from benchmarks.overshoot import run
from tests.workers import Workers
from tollmeter.settings import Settings

pytestmark = pytest.mark.stack


@pytest.mark.parametrize("seconds", [8.0, pytest.param(20.0, marks=pytest.mark.nightly)])
def test_ten_processes_overshoot_less_than_computed(line_settings: Settings, workers: Workers, seconds: float) -> None:
    workers.ready("price", "watch")
    found = run(line_settings, processes=10, seconds=seconds)
    assert found.bound_nano == 90_000_000
    assert found.bound_nano * 100 <= 20 * found.limit_nano
    assert found.spent_nano <= found.limit_nano + found.bound_nano, found
    assert found.spent_nano >= found.limit_nano // 2, found  # it held back, but not all: on a slow machine news is rare
    assert found.refused > 0
    assert found.unguarded_nano > found.limit_nano + found.bound_nano, found
