"""Past calls priced again on a running line: exact, once, resumable; and what they would have cost otherwise."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from tests.exchange import dated
from tests.usage_rows import avro, fields
from tollmeter.admin import reprice as past
from tollmeter.cli.export import export
from tollmeter.cli.reprice import reprice, whatif
from tollmeter.schemas.event import micros
from tollmeter.settings import Settings
from tollmeter.sinks.clickhouse.client import ClickHouse, connect
from tollmeter.streams.price.batch import price_batch
from tollmeter.streams.price.book.book import load
from tollmeter.streams.rules.records.decode import LEDGER_COLUMNS, PricedBlock, read, to_insert
from tollmeter.streams.rules.records.encode import blocks, encode_dicts
from tollmeter.streams.rules.windows.amend import Part, records

pytestmark = pytest.mark.stack

AT = datetime(2026, 11, 20, 10, 0, tzinfo=UTC)
ROWS = 3_000
RULES = """version: 1
rates:
  - {name: later, provider: own, model: later-1, source: contract, usd_per_mtok: {input_tokens: 2}}
  - {name: cheap, provider: openai, model: gpt-4o, source: contract, usd_per_mtok: {input_tokens: 1, output_tokens: 5}}
"""


class Record:
    partition, timestamp, key, headers = 3, 1_795_341_700_123, None, ()

    def __init__(self, offset: int, value: bytes) -> None:
        self.offset, self.value = offset, value


def event(number: int) -> dict[str, Any]:
    """Return a call of one of two organisations and of two models, of which one has no price yet."""
    later = number % 3 == 0
    named = {"provider": "own", "model_sent": "later-1"} if later else {"provider": "openai", "model_sent": "gpt-4o"}
    return fields(
        number,
        org_id=f"org{number % 2}",
        model_used="",
        occurred_at=micros(AT + timedelta(seconds=number)),
        input_tokens=1_000 + number,
        cache_read_tokens=0,
        cache_write_tokens=0,
        cache_write_1h_tokens=0,
        reasoning_tokens=0,
        output_tokens=0 if later else 100,
        service_tier="",
        processing="REALTIME",
        extra_units={},
        **named,
    )


@pytest.fixture(name="client")
def connected(ledger_settings: Settings) -> Any:
    client = connect(ledger_settings)
    client.command("TRUNCATE TABLE usage_events")
    rows = price_batch([[Record(at, avro(event(at))) for at in range(ROWS)]], load(dated())).rows
    for number, (value, _) in enumerate(blocks(encode_dicts(rows), [], "b", "b")):
        client.insert_arrow("usage_events", to_insert(read(PricedBlock(3, number, value))), LEDGER_COLUMNS)
    yield client
    client.close()


def stored(client: ClickHouse, parts: list[Part], offset: int) -> None:
    """Do with corrections as LEDGER does: what replaces a row is inserted, at its place in the log."""
    for part in parts:
        for value, _ in records(part, "c", ""):
            block = PricedBlock(3, offset, value)
            rows = read(block)
            client.insert_arrow("usage_events", to_insert(rows[rows.height // 2 :]), LEDGER_COLUMNS)
            offset += 1


def expected(number: int) -> int:
    tokens = 1_000 + number
    return tokens * 2_000 if number % 3 == 0 else tokens * 1_000 + 100 * 5_000


def costs(client: ClickHouse) -> list[int]:
    rows = client.query("SELECT cost_nano FROM usage_events FINAL ORDER BY event_time")
    return [row["cost_nano"] for row in rows]


def own_book(tmp_path: Path) -> Any:
    (tmp_path / "own.yaml").write_text(RULES, encoding="utf-8")
    return load(dated().model_copy(update={"prices_file": str(tmp_path / "own.yaml")}))


@pytest.mark.parametrize("stop", [1, 2, 4, None])
def test_stopped_anywhere_and_run_again_it_is_exact(
    client: ClickHouse, tmp_path: Path, stop: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(past, "SLICE_ROWS", 700)
    book = own_book(tmp_path)
    wanted = past.Wanted(AT, AT + timedelta(days=1))
    sent = 0

    class Stopped(Exception):  # noqa: N818 - as killed
        pass

    def send(parts: list[Part]) -> None:
        nonlocal sent
        sent += 1
        stored(client, parts, 1_000 + 10 * sent)
        if sent == stop:
            stored(client, parts, 5_000)  # and delivered again
            raise Stopped

    def run() -> past.Summary:
        return past.reprice(client, wanted, book.price, send, past.Pace(None), lambda count: None)[0]

    if stop is not None:
        with pytest.raises(Stopped):
            run()
    summary = run()
    assert costs(client) == [expected(number) for number in range(ROWS)]
    assert summary.changed == ROWS or stop is not None
    again = run()
    assert (again.calls, again.changed, again.rows()) == (ROWS, 0, [])
    (revision,) = client.query("SELECT max(revision) AS most, min(revision) AS least FROM usage_events FINAL")
    assert (revision["most"], revision["least"]) == (1, 1)


def test_the_dry_run_says_before_and_after(client: ClickHouse, ledger_settings: Settings, tmp_path: Path) -> None:
    own_book(tmp_path)
    words = ["--from", "2026-11-20", "--until", "2026-11-21", "--overrides", str(tmp_path / "own.yaml"), "--dry-run"]
    done = CliRunner().invoke(reprice, [*words, "--json"], obj=ledger_settings)
    assert done.exit_code == 0, done.output
    document = json.loads(done.stdout)
    assert (document["calls"], document["changed"], document["unpriced_before"]) == (ROWS, ROWS, ROWS // 3)
    assert document["after_nano"] == sum(map(expected, range(ROWS)))
    assert costs(client).count(None) == ROWS // 3  # type: ignore[arg-type]
    later = [row for row in document["rows"] if row["model"] == "later-1"]
    assert {(row["before_nano"], row["difference_nano"]) for row in later} == {(None, None)}
    assert sum(row["after_nano"] for row in later) == sum(expected(number) for number in range(0, ROWS, 3))
    only = CliRunner().invoke(reprice, [*words, "--unpriced", "--org", "org0", "--json"], obj=ledger_settings)
    alone = json.loads(only.stdout)
    assert (alone["changed"], alone["before_nano"], alone["difference_nano"]) == (ROWS // 6, None, None)
    text = CliRunner().invoke(reprice, words, obj=ledger_settings).stdout
    (line, _) = [line.split() for line in text.splitlines() if "later-1" in line]
    assert (line[5], line[-2:]) == ("—", [f"{ROWS // 6}", "0"])


def test_what_if(client: ClickHouse, ledger_settings: Settings) -> None:
    words = ["--model", "gpt-4o=gpt-4o-mini", "--since", "2026-11-20", "--until", "2026-11-21", "--json"]
    done = CliRunner().invoke(whatif, words, obj=ledger_settings)
    assert done.exit_code == 0, done.output
    document = json.loads(done.stdout)
    calls = [1_000 + number for number in range(ROWS) if number % 3]
    assert document["before_nano"] == sum(tokens * 2_500 + 100 * 10_000 for tokens in calls)
    assert document["after_nano"] == sum(tokens * 150 + 100 * 600 for tokens in calls)
    half = CliRunner().invoke(whatif, ["--tier", "batch", *words[2:]], obj=ledger_settings)
    assert json.loads(half.stdout)["after_nano"] * 2 == document["before_nano"]
    for wrong in (["--model", "gpt-4o"], []):
        refused = CliRunner().invoke(whatif, [*wrong, *words[2:]], obj=ledger_settings)
        assert refused.exit_code == 2


def test_focus_and_journal(client: ClickHouse, ledger_settings: Settings, tmp_path: Path) -> None:
    import csv
    import io
    from decimal import Decimal

    import polars as pl

    from tollmeter.admin.focus import failures

    def run(*words: str) -> Any:
        done = CliRunner().invoke(
            export, [*words, "--since", "2026-11-20", "--until", "2026-11-21"], obj=ledger_settings
        )
        assert done.exit_code == 0, done.output
        return done

    total = Decimal(sum((1_000 + n) * 2_500 + 100 * 10_000 for n in range(ROWS) if n % 3)) / 10**9
    for version, count in (("1.2", 57), ("1.0", 43)):
        done = run("--focus", version, "--format", "csv")
        rows = list(csv.DictReader(io.StringIO(done.stdout)))
        assert len(rows[0]) == count
        assert sum(Decimal(row["BilledCost"]) for row in rows) == total
        assert "1,000 calls of unknown cost" in done.stderr
        parquet = pl.read_parquet(io.BytesIO(run("--focus", version, "--format", "parquet").stdout_bytes))
        assert failures(parquet, version) == []
        assert parquet["BilledCost"].sum() == total
    broken = parquet.with_columns(BillingCurrency=pl.lit("usd"), ServiceCategory=pl.lit("AI"))
    assert len(failures(broken, "1.0")) == 2
    journal = list(csv.DictReader(io.StringIO(run("--journal", "--format", "csv").stdout)))
    assert sum(Decimal(row["amount"]) for row in journal if row["currency"] == "USD") == total
    run("--daily", str(tmp_path / "days"))
    (file,) = (tmp_path / "days").iterdir()
    assert file.name == "calls-2026-11-20.csv"
    assert len(list(csv.DictReader(io.StringIO(file.read_text(encoding="utf-8"))))) == ROWS
