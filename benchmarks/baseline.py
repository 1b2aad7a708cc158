"""Runs the plain Faust agent on the same topic and compares its sums with the ledger before any ratio is believed."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex

from benchmarks import plain_rates
from benchmarks.line import WrongError
from benchmarks.plain_faust import MEASURES, VARIANTS
from benchmarks.plain_rates import PARTS
from tollmeter.embedded.environment import settings_environment
from tollmeter.schemas.codec import PLAIN_SCHEMA
from tollmeter.settings import Settings
from tollmeter.sinks.clickhouse.client import ClickHouse, connect

ROOT = Path(__file__).resolve().parents[1]
TIMEOUT_S = 150
ATTEMPTS = 3
TYPES = {"string": "String", "long": "Int64", "int": "Int32", "boolean": "Bool"}
COMPARE = """
SELECT count() AS calls,
       countIf(plain.cost_nano IS DISTINCT FROM ours.cost_nano) AS other_cost,
       countIf(arrayExists((a, b) -> a IS DISTINCT FROM b, [PLAIN_PARTS], [OUR_PARTS])) AS other_parts,
       countIf(plain.cost_eur_nano IS DISTINCT FROM ours.cost_eur_nano) AS other_eur,
       countIf(plain.cost_rub_nano IS DISTINCT FROM ours.cost_rub_nano) AS other_rub,
       toInt64(sum(ifNull(plain.cost_nano, 0))) AS cost_nano, toInt64(sum(ifNull(ours.cost_nano, 0))) AS our_cost_nano,
       sum(plain.input_tokens) AS input_tokens, sum(ours.input_tokens) AS our_input_tokens
FROM plain_events AS plain
INNER JOIN (
    SELECT toString(event_id) AS id, cost_nano, cost_eur_nano, cost_rub_nano, input_tokens, PARTS
    FROM usage_events FINAL
    WHERE event_id IN (SELECT toUUID(event_id) FROM plain_events)
) AS ours ON ours.id = plain.event_id
"""
WRONG_WINDOWS = """
SELECT kind, name, start, calls, input_tokens, cost_nano FROM plain_windows FINAL WHERE level = {level:String}
EXCEPT
SELECT pair.1 AS kind, concat(org_id, '/', pair.2) AS name, toDateTime(dateTrunc({level:String},
    fromUnixTimestamp64Micro(occurred_at, 'UTC'), 'UTC'), 'UTC') AS start, toInt64(count()) AS calls,
    toInt64(sum(input_tokens)) AS input_tokens,
    toInt64(sum(if(billing_scope = 'USER', 0, ifNull(cost_nano, 0)))) AS cost_nano
FROM plain_events ARRAY JOIN SCOPES AS pair WHERE pair.1 = 'org' OR pair.2 != '' GROUP BY kind, name, start
"""
SCOPES = ", ".join(f"('{kind}', toString({field}))" for kind, field in plain_rates.KINDS.items())


@dataclass(frozen=True, slots=True)
class BaselineResult:
    windows: str
    events: int
    timed: int
    seconds: float
    cpu_us_per_event: float

    @property
    def events_per_second(self) -> float:
        return self.timed / self.seconds


def run_baseline(settings: Settings, windows: str, events: int, rates: plain_rates.PlainRates) -> BaselineResult:
    """Run one plain agent on the first events of the topic. Raises `WrongError` when its sums are not the ledger's."""
    clickhouse = connect(settings)
    measured: dict[str, float] | None = None
    for _number in range(ATTEMPTS):
        make_tables(clickhouse)
        measured = _attempt(settings, [windows, "--events", str(events), "--group", f"plain-{token_hex(4)}"], rates)
        if measured is not None:
            break
    if measured is None:
        raise WrongError(f"plain Faust with {windows} did not finish in {ATTEMPTS} attempts of {TIMEOUT_S} s")
    count, timed = int(measured["events"]), int(measured["timed"])
    compare(clickhouse, count, VARIANTS[windows])
    clickhouse.close()
    return BaselineResult(windows, count, timed, measured["seconds"], measured["cpu_s"] / max(1, timed) * 1e6)


def _attempt(settings: Settings, arguments: list[str], rates: plain_rates.PlainRates) -> dict[str, float] | None:
    """Run the agent once; None when it hangs, as Faust's start with tables sometimes does."""
    with tempfile.TemporaryDirectory(prefix="plain-faust-") as folder:
        rates_file, report = Path(folder, "rates.json"), Path(folder, "report.json")
        rates_file.write_text(plain_rates.dumps(rates))
        command = [sys.executable, "-m", "benchmarks.plain_faust", *arguments]
        command += ["--rates", str(rates_file), "--report", str(report)]
        environment = {**os.environ, **settings_environment(settings), "PYTHONPATH": str(ROOT)}
        try:
            done = subprocess.run(
                command, cwd=folder, env=environment, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
            )
        except subprocess.TimeoutExpired:
            return None
        if not report.exists():
            raise WrongError(f"plain Faust ended early: {done.stderr[-2_000:]}")
        measured: dict[str, float] = json.loads(report.read_text())
        return measured


def make_tables(clickhouse: ClickHouse) -> None:
    """Make the tables that such a program would have, empty: every field of an event, and its windows."""
    columns = ", ".join(f"{field['name']} {column_type(field['type'])}" for field in PLAIN_SCHEMA["fields"])
    for statement in (
        "DROP TABLE IF EXISTS plain_events",
        "DROP TABLE IF EXISTS plain_windows",
        (
            f"CREATE TABLE plain_events ({columns}, model LowCardinality(String), cost_nano Nullable(Int64), "
            f"cost_eur_nano Nullable(Int64), cost_rub_nano Nullable(Int64), "
            f"{', '.join(f'{part} Nullable(Int64)' for part in PARTS)}) "
            "ENGINE = MergeTree ORDER BY (occurred_at, event_id)"
        ),
        (
            "CREATE TABLE plain_windows (level LowCardinality(String), kind LowCardinality(String), name String, "
            f"start DateTime('UTC'), {', '.join(f'{name} Int64' for name in MEASURES)}, "
            "at DateTime64(6) DEFAULT now64(6)) "
            "ENGINE = ReplacingMergeTree(at) ORDER BY (level, kind, name, start)"
        ),
    ):
        clickhouse.command(statement)


def compare(clickhouse: ClickHouse, events: int, levels: Sequence[str]) -> None:
    """Raise `WrongError` unless every event costs what the ledger says and the windows add up to the events."""
    asked = COMPARE.replace("PLAIN_PARTS", ", ".join(f"plain.{part}" for part in PARTS))
    asked = asked.replace("OUR_PARTS", ", ".join(f"ours.{part}" for part in PARTS)).replace("PARTS", ", ".join(PARTS))
    (sums,) = clickhouse.query(asked)
    same = sums["cost_nano"] == sums["our_cost_nano"] and sums["input_tokens"] == sums["our_input_tokens"]
    if (
        sums["calls"] != events
        or sums["other_cost"]
        or sums["other_parts"]
        or sums["other_eur"]
        or sums["other_rub"]
        or not same
    ):
        raise WrongError(f"plain Faust and the ledger differ over {events} events: {sums}")
    for level in levels:
        wrong = clickhouse.query(WRONG_WINDOWS.replace("SCOPES", f"[{SCOPES}]"), {"level": level})
        if wrong or not clickhouse.query(
            "SELECT 1 FROM plain_windows WHERE level = {level:String} LIMIT 1", {"level": level}
        ):
            raise WrongError(f"{len(wrong)} {level} windows of plain Faust are not the sums of its events: {wrong[:3]}")


def column_type(avro: object) -> str:
    """Return the column of ClickHouse that holds an Avro type."""
    if isinstance(avro, list):
        return f"Nullable({column_type(next(kind for kind in avro if kind != 'null'))})"
    if isinstance(avro, dict):
        if avro["type"] == "map":
            return f"Map(String, {'Float64' if avro['values'] == 'double' else 'String'})"
        return "LowCardinality(String)" if avro["type"] == "enum" else TYPES[avro["type"]]
    return TYPES[str(avro)]
