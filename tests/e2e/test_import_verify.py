"""A real trace through the whole line: the ledger equals plain Python, and `verify` sees what is planted."""

import asyncio
import gzip
import json
import os
from collections import defaultdict
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import ROUND_HALF_EVEN, Decimal
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from genai_prices import Usage, calc_price

from tests.workers import Workers
from tollmeter.cli.root import tollmeter
from tollmeter.producers.imports.imports import Import, Report, events
from tollmeter.producers.imports.publish import publish
from tollmeter.schemas.event import UsageEvent
from tollmeter.settings import Settings
from tollmeter.sinks.clickhouse.client import ClickHouse, connect
from tollmeter.traffic import sample
from tollmeter.traffic.company import company
from tollmeter.traffic.stream import Wire

pytestmark = [pytest.mark.stack, pytest.mark.timeout(400)]

Eventually = Callable[..., Any]


@pytest.fixture(autouse=True)
def _running(workers: Workers) -> None:
    workers.ready("price", "ledger", "watch")


def command(settings: Settings, *arguments: str, text: bytes | None = None) -> tuple[int, Any]:
    """Run one command and return its exit code and the JSON document it prints."""
    done = CliRunner().invoke(tollmeter, [*arguments, "--json"], obj=settings, input=text, standalone_mode=False)
    if done.exception:
        raise done.exception
    return int(done.return_value or 0), json.loads(done.stdout)


ALWAYS = datetime(2000, 1, 1, tzinfo=UTC)
BATCH_AT_HALF_SINCE = {"openai": datetime(2024, 4, 15, tzinfo=UTC)} | dict.fromkeys(
    ("google", "anthropic", "mistral"), ALWAYS
)
"""Their batches cost half; of some models the library does not know it. A cache hit in one of Google's costs what it
costs elsewhere."""


def nano_usd(event: UsageEvent) -> int:
    """The cost of an event by the price library itself, in decimals, rounded once; by hand where that errs."""
    if event.provider == "ollama":
        return 0
    usd = by_the_library(event, None)
    if event.processing == "BATCH":
        of_batches = by_the_library(event, {"processing": "batch"})
        since = BATCH_AT_HALF_SINCE.get(event.provider)
        half = of_batches == usd and since is not None and event.occurred_at >= since
        hits = cache_hits(event) if event.provider == "google" else Decimal(0)
        usd = (usd + hits) / 2 if half else of_batches
    return int((usd * 10**9).quantize(Decimal(1), ROUND_HALF_EVEN))


def cache_hits(event: UsageEvent) -> Decimal:
    """What its cached input costs alone, outside batches."""
    return by_the_library(event.model_copy(update={"input_tokens": event.cache_read_tokens, "output_tokens": 0}), None)


def by_the_library(event: UsageEvent, context: dict[str, str] | None) -> Decimal:
    usage = Usage(
        input_tokens=event.input_tokens,
        cache_read_tokens=event.cache_read_tokens or None,
        output_tokens=event.output_tokens,
    )
    price = calc_price(
        usage,
        event.model_used,
        provider_id=event.provider,
        genai_request_timestamp=event.occurred_at,
        price_context=context,
    )
    return price.total_price


def sums(found: list[UsageEvent]) -> dict[tuple[str, str, str], list[int]]:
    """Calls, input, output and cost per organisation, key and model, added up in plain Python."""
    out: dict[tuple[str, str, str], list[int]] = defaultdict(lambda: [0, 0, 0, 0])
    for event in found:
        total = out[event.org_id, event.api_key_id, event.model_used]
        for at, value in enumerate((1, event.input_tokens, event.output_tokens, nano_usd(event))):
            total[at] += value
    return dict(out)


def ledger_sums(client: ClickHouse) -> dict[tuple[str, str, str], list[int]]:
    rows = client.query(
        "SELECT org_id, api_key_id, model_used, count() AS calls, sum(input_tokens) AS input, "
        "sum(output_tokens) AS output, sum(cost_nano) AS cost FROM usage_events FINAL GROUP BY ALL"
    )
    return {
        (row["org_id"], row["api_key_id"], row["model_used"]): [
            int(row[name]) for name in ("calls", "input", "output", "cost")
        ]
        for row in rows
    }


@pytest.fixture
def trace() -> Path:
    folder = os.environ.get("TOLLMETER_TRACES")
    if not folder:
        pytest.skip("no trace folder: set TOLLMETER_TRACES")
    return Path(folder) / "llm_usage_sample.csv.gz"


def every(nth: int, trace: Path, folder: Path) -> Path:
    """Write a trace of every nth line of another."""
    shorter = folder / trace.name
    with gzip.open(trace, "rt", encoding="utf-8") as lines, gzip.open(shorter, "wt", encoding="utf-8") as out:
        out.write(next(lines))
        out.writelines(islice(lines, 0, None, nth))
    return shorter


@pytest.mark.parametrize(("nth", "least"), [(8, 6_000), pytest.param(1, 50_000, marks=pytest.mark.nightly)])
def test_real_trace_is_exact_and_importing_it_again_adds_nothing(
    trace: Path, line: Settings, nth: int, least: int, tmp_path: Path
) -> None:
    trace = every(nth, trace, tmp_path)
    found = [event for _, event in events(Import(str(trace), traces=sample), Report())]
    assert len(found) > least
    code, first = command(line, "import", str(trace))
    assert (code, first["acknowledged"], first["bad"]) == (0, len(found), 0)
    code, counts = command(line, "verify", "--wait", "120s")
    assert (code, counts["differences"]) == (0, [])
    assert counts["records"] == counts["ledger"] == counts["distinct"] == len(found)
    client = connect(line)
    expected = sums(found)
    assert ledger_sums(client) == expected

    command(line, "import", str(trace))
    code, counts = command(line, "verify", "--wait", "120s")
    assert (code, counts["differences"]) == (0, [])
    assert counts["records"] == counts["accepted"] == 2 * len(found)
    assert (counts["ledger"], counts["resends"], counts["rejected"]) == (len(found), len(found), 0)
    assert ledger_sums(client) == expected
    client.close()


def test_verify_counts_each_term_and_names_what_is_planted(line: Settings, eventually: Eventually) -> None:
    wire = Wire(company(3), 3_000, 1_795_000_000_000_000, 1_800_000_000, "both", 0.02, 0.01)
    asyncio.run(publish(line, (values for _, values in wire.blocks())))
    code, counts = command(line, "verify", "--wait", "60s")
    assert (code, counts["differences"]) == (0, [])
    expected = {
        "records": wire.sent_events + wire.sent_resends + wire.sent_poison,
        "distinct": wire.sent_events,
        "accepted": wire.sent_events + wire.sent_resends,
        "rejected": wire.sent_poison,
        "resends": wire.sent_resends,
        "ledger": wire.sent_events,
        "voided": 0,
        "differences": [],
    }
    assert {name: counts[name] for name in expected} == expected
    client = connect(line)
    row = client.query("SELECT * FROM usage_events FINAL WHERE cost_nano > 0 ORDER BY event_id LIMIT 1")[0]
    wanted = {"id": str(row["event_id"])}

    client.command(
        "INSERT INTO usage_events SELECT * REPLACE (version + 1 AS version, cost_nano + 7 AS cost_nano) "
        "FROM usage_events FINAL WHERE event_id = {id:UUID}",
        wanted,
    )
    code, counts = command(line, "verify")
    found = {difference["name"]: difference for difference in counts["differences"]}
    assert code == 1
    assert found["cost_nano"]["amount"] == 7
    assert wanted["id"] in found["cost_nano"]["detail"]

    client.command("DELETE FROM usage_events WHERE event_id = {id:UUID}", wanted)
    code, counts = command(line, "verify")
    found = {difference["name"]: difference for difference in counts["differences"]}
    assert (code, counts["ledger"], counts["distinct"]) == (1, 2_999, 3_000)
    assert found["missing_in_ledger"]["amount"] == found["distinct = ledger"]["amount"] == 1
    assert wanted["id"] in found["missing_in_ledger"]["detail"]

    _import_log_export(line, client, eventually)
    client.close()


def _import_log_export(line: Settings, client: ClickHouse, eventually: Eventually) -> None:
    """From standard input, zipped; an entry that the log store exported twice is stored once."""
    entries = [
        {
            "insertId": f"insert-{number % 40}",
            "jsonPayload": {
                "t": "openai_usage",
                "request_id": f"r-{number % 40}",
                "model_sent": "gpt-4o",
                "model_used": "gpt-4o",
                "usage": {"prompt_tokens": 1_000, "output_tokens": 10},
                "est_cost": 0.0026,
                "api_key_id": "0a1b2c3d",
                "timestamp": f"2026-11-20T10:00:{number % 40:02d}Z",
            },
        }
        for number in range(50)
    ]
    text = gzip.compress(json.dumps(entries).encode())
    code, done = command(line, "import", "-", "--org", "export", text=text)
    assert (code, done["acknowledged"]) == (0, 50)
    query = (
        "SELECT count() AS calls, sum(cost_nano) AS cost, sum(reported_cost_nano) AS stated "
        "FROM usage_events FINAL WHERE org_id = 'export'"
    )
    eventually(lambda: client.query(query)[0]["calls"] == 40, 60)
    assert client.query(query)[0] == {"calls": 40, "cost": 40 * 2_600_000, "stated": 40 * 2_600_000}
