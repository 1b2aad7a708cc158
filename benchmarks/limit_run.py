"""Runs the reader without a framework on the same topic, and holds what it stored to the ledger before any ratio."""

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex

from benchmarks import plain_rates
from benchmarks.baseline import ROOT, column_type
from benchmarks.limit import KINDS, MEASURES
from benchmarks.line import WrongError
from benchmarks.measure import CpuMark
from benchmarks.preload import Loaded
from tollmeter.embedded.environment import settings_environment
from tollmeter.schemas.codec import PLAIN_SCHEMA
from tollmeter.settings import Settings
from tollmeter.sinks.clickhouse.client import ClickHouse, connect

TIMEOUT_S = 600
LEFT_OUT = ("tags", "extra_units")
COMPARE = """
SELECT count() AS records, uniqExact(mine.event_id) AS events, sum(mine.input_tokens) AS input_tokens,
       sum(ours.input_tokens) AS our_input_tokens, countIf(mine.cost_nano IS NOT NULL) AS priced,
       countIf(mine.cost_nano IS NOT NULL AND mine.cost_nano IS DISTINCT FROM ours.cost_nano) AS other_cost
FROM limit_events AS mine
INNER JOIN (SELECT toString(event_id) AS id, input_tokens, cost_nano FROM usage_events FINAL) AS ours
ON ours.id = mine.event_id
"""
WRONG_WINDOWS = """
SELECT org_id, kind, name, start, calls, input_tokens, output_tokens, cost_nano FROM limit_windows
EXCEPT
SELECT org_id, pair.1 AS kind, pair.2 AS name, toDateTime(intDiv(occurred_at, 60000000) * 60, 'UTC') AS start,
       toInt64(count()) AS calls, toInt64(sum(input_tokens)) AS input_tokens,
       toInt64(sum(output_tokens)) AS output_tokens, toInt64(sum(ifNull(cost_nano, 0))) AS cost_nano
FROM limit_events ARRAY JOIN [KINDS] AS pair GROUP BY org_id, kind, name, start
"""


@dataclass(frozen=True, slots=True)
class LimitResult:
    events: int
    seconds: float
    cpu_us_per_event: float
    clickhouse_us_per_event: float

    @property
    def events_per_second(self) -> float:
        return self.events / self.seconds


def run_limit(
    settings: Settings, clickhouse_pid: int, loaded: Loaded, rates: plain_rates.PlainRates, least_priced: float = 0.5
) -> LimitResult:
    """Read every record of the topic. Raises `WrongError` when what it stored is not what the ledger holds.

    At least this share of the calls must have a price that it knows: else it did too little to be compared with.
    """
    clickhouse = connect(settings)
    make_tables(clickhouse)
    before = CpuMark.now({"clickhouse": clickhouse_pid})
    measured = _measure(settings, loaded.records, rates)
    after = CpuMark.now({"clickhouse": clickhouse_pid})
    compare(clickhouse, loaded, least_priced)
    clickhouse.close()
    return LimitResult(
        loaded.records,
        measured["seconds"],
        measured["cpu_s"] / loaded.records * 1e6,
        before.per_event_us(after, loaded.records)["clickhouse"],
    )


def _measure(settings: Settings, events: int, rates: plain_rates.PlainRates) -> dict[str, float]:
    with tempfile.TemporaryDirectory(prefix="limit-") as folder:
        rates_file, report = Path(folder, "rates.json"), Path(folder, "report.json")
        rates_file.write_text(plain_rates.dumps(rates))
        command = [sys.executable, "-m", "benchmarks.limit", "--events", str(events), "--group"]
        command += [f"limit-{token_hex(4)}", "--rates", str(rates_file), "--report", str(report)]
        environment = {**os.environ, **settings_environment(settings), "PYTHONPATH": str(ROOT)}
        try:
            done = subprocess.run(
                command, cwd=folder, env=environment, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
            )
        except subprocess.TimeoutExpired:
            raise WrongError(f"the reader without a framework did not finish within {TIMEOUT_S} s") from None
        if not report.exists():
            raise WrongError(f"the reader without a framework ended early: {done.stderr[-2_000:]}")
        measured: dict[str, float] = json.loads(report.read_text())
        return measured


def make_tables(clickhouse: ClickHouse) -> None:
    """Make its tables, empty: the fields of an event but for its maps, the cost and the place; and the windows."""
    fields = [field for field in PLAIN_SCHEMA["fields"] if field["name"] not in LEFT_OUT]
    columns = ", ".join(f"{field['name']} {column_type(field['type'])}" for field in fields)
    for statement in (
        "DROP TABLE IF EXISTS limit_events",
        "DROP TABLE IF EXISTS limit_windows",
        (
            f"CREATE TABLE limit_events ({columns}, cost_nano Nullable(Int64), kafka_partition UInt16, "
            "kafka_offset Int64) ENGINE = MergeTree ORDER BY (occurred_at, event_id)"
        ),
        (
            "CREATE TABLE limit_windows (org_id String, kind LowCardinality(String), name String, "
            f"start DateTime('UTC'), {', '.join(f'{name} Int64' for name in MEASURES)}) "
            "ENGINE = MergeTree ORDER BY (org_id, kind, name, start)"
        ),
    ):
        clickhouse.command(statement)


def compare(clickhouse: ClickHouse, loaded: Loaded, least_priced: float) -> None:
    """Raise `WrongError` unless every record is there, every price it knows is the ledger's, and the windows add up."""
    (sums,) = clickhouse.query(COMPARE)
    same = sums["records"] == loaded.records and sums["events"] == loaded.events
    same = same and sums["input_tokens"] == sums["our_input_tokens"] and not sums["other_cost"]
    if not same or sums["priced"] < least_priced * loaded.records:
        raise WrongError(f"the reader without a framework and the ledger differ over {loaded.records} records: {sums}")
    kinds = ", ".join(f"('{kind}', {kind})" for kind in KINDS)
    wrong = clickhouse.query(WRONG_WINDOWS.replace("KINDS", kinds))
    if wrong or not clickhouse.query("SELECT 1 FROM limit_windows LIMIT 1"):
        raise WrongError(f"{len(wrong)} windows of the reader without a framework are not its events': {wrong[:3]}")
