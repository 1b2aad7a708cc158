"""kill -9 at any moment of reprice, close, both imports and forget: books balance, and the command completes the rest.

A round starts a command as a process, kills it, asks `verify`, runs the command to its end and compares with plain
Python: nothing is lost, nothing twice. A round whose command was done before is no kill: `make test` takes 3 kills and
each command once, the nightly form 200, 10 to a line.
"""

import json
import random
import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.test_correct import _publish, ask
from tests.usage_rows import fields
from tests.workers import Workers, run
from tollmeter.schemas.event import micros
from tollmeter.settings import Settings
from tollmeter.sinks.clickhouse.client import ClickHouse, connect

pytestmark = [pytest.mark.stack, pytest.mark.timeout(1_800)]

KINDS = ("reprice", "close", "bills", "import", "forget")
CALLS, PERSONS, LINES = 1_000, 200, 200
FACTORS = """version: 1
factors:
  - {{name: deal, provider: openai, factor: "{}", source: contract}}
"""
BOOKS = """SELECT count() AS calls, uniqExact(event_id) AS ids, sum(input_tokens + output_tokens) AS tokens,
    sum(cost_nano) AS cost_nano FROM usage_events FINAL WHERE status != 'VOID'"""


def month() -> datetime:
    """Return the first of the last month that is over: its days are in windows and may be closed."""
    return (datetime.now(UTC).replace(day=1) - timedelta(days=1)).replace(
        day=1, hour=0, minute=0, second=0, microsecond=0
    )


def call(number: int) -> dict[str, Any]:
    """Return a call of gpt-4o of 1,000 tokens in and 100 out: 3,500,000 nano-USD at its list price."""
    at = month() + timedelta(days=25, seconds=7 * number)
    return fields(
        number,
        occurred_at=micros(at),
        org_id=f"org{number % 3}",
        user_id=f"person-{number % PERSONS}",
        model_used="gpt-4o",
        input_tokens=1_000,
        output_tokens=100,
        extra_units={},
        service_tier="",
    )


class Books:
    """What must be so, in plain Python, and the commands of each kind."""

    def __init__(self, line: Settings, client: ClickHouse, folder: Path) -> None:
        self.line, self.client, self.folder = line, client, folder
        self.factor, self.imported, self.closed, self.billed = 1, 0, 0, 0

    def words(self, kind: str, number: int) -> list[str]:
        """Return the command of a round, its files written."""
        name = f"{month():%Y-%m}"
        if kind == "reprice":
            self.factor = 2 + number % 7
            file = self.folder / "own.yaml"
            file.write_text(FACTORS.format(self.factor), encoding="utf-8")
            span = ["--from", f"{month():%Y-%m-%d}", "--until", f"{datetime.now(UTC):%Y-%m-%d}"]
            return ["reprice", *span, "--overrides", str(file), "--model", "gpt-4o", "--provider", "openai"]
        if kind == "close":
            return ["close", name]
        if kind == "bills":
            file = self.folder / f"bill-{number}.csv"
            days = [f"{name}-{day:02},gpt-4o,{number}.{day:02}" for day in range(1, 29)]
            file.write_text("\n".join(["day,model,amount", *days]) + "\n", encoding="utf-8")
            columns = ["--map", "day=day", "--map", "model=model", "--map", "amount=amount"]
            return ["bills", "import", str(file), "--provider", "openai", "--account", "a", *columns]
        if kind == "import":
            file = self.folder / f"log-{number}.jsonl"
            at = month() + timedelta(days=26)
            lines = [
                {
                    "t": "openai_usage",
                    "request_id": f"r-{number}-{one}",
                    "timestamp": (at + timedelta(seconds=one)).isoformat(),
                    "model_used": "gpt-4o-mini",
                    "usage": {"prompt_tokens": 1_000, "completion_tokens": 0, "total_tokens": 1_000},
                }
                for one in range(LINES)
            ]
            file.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
            return ["import", str(file), "--org", "imported"]
        return ["forget", "--user", f"person-{number % PERSONS}"]

    def hold(self, eventually: Callable[..., Any]) -> None:
        """Compare the ledger with what was sent and done."""
        expected = {
            "calls": CALLS + self.imported,
            "ids": CALLS + self.imported,
            "tokens": CALLS * 1_100 + self.imported * 1_000,
            "cost_nano": CALLS * 3_500_000 * self.factor + self.imported * 150_000,
        }
        eventually(lambda: self.client.query(BOOKS)[0] == expected, 60)

    def completed(self, kind: str, number: int) -> None:
        """Run the command of a round to its end, and look at what it left."""
        code, document = ask(
            self.line, *self.words(kind, number), *(["--wait", "60s"] if kind in ("reprice", "forget") else [])
        )
        assert code == 0, (kind, number, document)
        if kind == "close":
            self.closed += 1
            rows = self.client.query("SELECT number, state FROM statements FINAL ORDER BY number")
            states = ["reopened"] * (self.closed - 1) + ["closed"]
            assert [(row["number"], row["state"]) for row in rows] == list(enumerate(states, 1))
            assert document["totals"]["calls"] == CALLS + self.imported
            code, _ = ask(self.line, "close", document["month"], "--reopen", "--reason", "another round")
            assert code == 0
        elif kind == "bills":
            (row,) = self.client.query("SELECT sum(amount) AS usd, count() AS lines FROM provider_bills")
            assert (row["lines"], f"{row['usd']:.2f}") == (28, f"{28 * number + sum(range(1, 29)) / 100:.2f}")
        elif kind == "import":
            self.imported += LINES
        elif kind == "forget":
            assert (document["forgotten"], document["totals_kept"]) == (True, True), document


NIGHTLY = [pytest.param(10, seed, marks=pytest.mark.nightly) for seed in range(1, 21)]


@pytest.mark.parametrize(("kills", "seed"), [(3, 16), *NIGHTLY])
def test_killed_at_any_moment(
    line_settings: Settings, workers: Workers, tmp_path: Path, eventually: Callable[..., Any], kills: int, seed: int
) -> None:
    line = line_settings.model_copy(update={"checkpoint_s": 0.5, "rollup_quiet_s": 0.5})
    workers.ready("price", "ledger", "watch", line=line)
    run(_publish(line, [call(number) for number in range(CALLS)]))
    client = connect(line)
    books, rng, took, killed = Books(line, client, tmp_path), random.Random(seed), dict[str, float](), Counter[str]()
    books.hold(eventually)
    number = 0
    while number < len(KINDS) or sum(killed.values()) < kills:
        assert number < 6 * kills, "hardly a command is still there when it is to be killed"
        kind = KINDS[number % len(KINDS)]
        process = workers.start(f"{kind}-{number}", *books.words(kind, number), line=line).process
        began, longest = time.monotonic(), took.get(kind, 4.0)
        at = began + rng.uniform(0.3, 1.0) * longest
        while process.poll() is None and time.monotonic() < at:
            time.sleep(0.005)
        if process.poll() is None:
            killed[kind] += 1
            process.kill()
        else:
            took[kind] = time.monotonic() - began
        process.wait()
        code, found = ask(line, "verify", "--wait", "60s")
        assert (code, found["differences"]) == (0, []), (kind, number)
        books.completed(kind, number)
        books.hold(eventually)
        number += 1
        print(f"{number} rounds, killed in the middle: {dict(killed)}", flush=True)
    client.close()
