"""The parts of the benchmark work together on a small load; how fast is none of a test's business."""

from pathlib import Path

import pytest

from benchmarks import baseline, limit_run, line, plain_rates
from benchmarks.past import fill
from benchmarks.preload import preload
from tollmeter.admin import setup as provision
from tollmeter.embedded.stack import Stack
from tollmeter.settings import Settings
from tollmeter.sinks.clickhouse.client import connect

pytestmark = [pytest.mark.stack, pytest.mark.timeout(400)]


def test_line_plain_faust_and_the_reader_without_framework_agree(tmp_path: Path, stack: object) -> None:
    """A stack of its own, as the benchmark makes it (`stack` says whether Java and Maven are there)."""
    wanted = Settings(kafka="127.0.0.1:0", clickhouse="http://127.0.0.1:0")
    with Stack(tmp_path, workers=(), settings=wanted) as own:
        provision.apply(own.settings)
        loaded = preload(own.settings, 2_000, 600)
        assert loaded.records > loaded.events == 2_000
        whole = line.run_line(own, loaded, 120)
        assert whole.events == loaded.records
        assert whole.cost_nano > 0
        assert set(whole.cpu_us_per_event) == {"price", "ledger", "watch", "clickhouse", "kafka"}
        line.stop_workers(own)
        rates = plain_rates.rates_of_today(own.settings)
        limit = limit_run.run_limit(own.settings, line.pids(own)["clickhouse"], loaded, rates)
        assert limit.events == loaded.records
        assert limit.cpu_us_per_event > 0
        plain = baseline.run_baseline(own.settings, "dicts", 1_000, rates)
        assert 950 < plain.events <= 1_000  # those sent twice are left out
        rates["openai|gpt-4o-mini-2024-07-18||REALTIME"] = []
        with pytest.raises(line.WrongError, match="differ"):
            baseline.run_baseline(own.settings, "dicts", 1_000, rates)
        rates["openai|gpt-4o-mini-2024-07-18||REALTIME"] = rates["openai|gpt-4o-2024-08-06||REALTIME"]
        with pytest.raises(line.WrongError, match="differ"):
            limit_run.run_limit(own.settings, line.pids(own)["clickhouse"], loaded, rates)


def test_the_past_is_each_call_of_the_line_again_at_other_times(tmp_path: Path, stack: object) -> None:
    wanted = Settings(kafka="127.0.0.1:0", clickhouse="http://127.0.0.1:0")
    with Stack(tmp_path, workers=(), settings=wanted) as own:
        provision.apply(own.settings)
        whole = line.run_line(own, preload(own.settings, 2_000, 600), 120)
        line.stop_workers(own)
        ledger = connect(own.settings)
        past = fill(ledger, 6_000, 3)
        assert past == (6_000, 3 * whole.cost_nano), "minutes, days and months agree with it, or it would have raised"
        (row,) = ledger.query(
            "SELECT uniqExact(event_id) AS ids, dateDiff('hour', min(event_time), now()) AS hours FROM usage_events"
        )
        assert row["ids"] == 6_000
        assert 71 <= row["hours"] <= 74
        ledger.close()
