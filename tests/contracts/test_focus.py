"""A FOCUS file of a hundred thousand charges: by our rules for 1.2, and for 1.0 by the validator that PyPI has."""

import csv
import io
import subprocess
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from click.testing import CliRunner

from tests import environments
from tests.contracts.test_cost_lines import SEATS, put
from tests.contracts.test_reprice import Record
from tests.exchange import dated
from tests.usage_rows import avro, fields
from tollmeter.admin.focus import failures
from tollmeter.cli.export import export
from tollmeter.schemas.event import micros
from tollmeter.settings import Settings
from tollmeter.sinks.clickhouse.client import ClickHouse, connect
from tollmeter.streams.price.batch import price_batch
from tollmeter.streams.price.book.book import load
from tollmeter.streams.rules.records.decode import LEDGER_COLUMNS, PricedBlock, read, to_insert
from tollmeter.streams.rules.records.encode import blocks, encode_dicts

pytestmark = [pytest.mark.stack, pytest.mark.timeout(600)]

BEGIN = datetime(2026, 11, 1, tzinfo=UTC)
CREDIT = SEATS.model_copy(update={"org_id": "", "name": "promo", "unit_nano": -5 * 10**9})
SPAN = ["--since", "2026-11-01", "--until", "2026-11-29"]
NANO = (2_500, 1_250, 10_000)
"""gpt-4o: nano-USD per token in, read from a cache, out."""


def event(number: int) -> dict[str, Any]:
    """Return a call of gpt-4o with a key of its own: three charges."""
    return fields(
        number,
        occurred_at=micros(BEGIN + timedelta(seconds=60 * (number % 40_000))),
        model_sent="gpt-4o",
        model_used="gpt-4o",
        api_key_id=f"key-{number:06}",
        group_id=("", "research", "=sum(1)")[number % 3],
        input_tokens=1_000 + number % 900,
        cache_read_tokens=100,
        cache_write_tokens=0,
        cache_write_1h_tokens=0,
        reasoning_tokens=0,
        output_tokens=1 + number % 300,
        service_tier="",
        processing="REALTIME",
        extra_units={},
    )


def cost_nano(number: int) -> int:
    fresh = 900 + number % 900
    return fresh * NANO[0] + 100 * NANO[1] + (1 + number % 300) * NANO[2]


def fill(client: ClickHouse, calls: int) -> None:
    client.command("TRUNCATE TABLE usage_events")
    book = load(dated())
    for begin in range(0, calls, 10_000):
        records = [Record(at, avro(event(at))) for at in range(begin, min(begin + 10_000, calls))]
        rows = price_batch([records], book).rows
        for number, (value, _) in enumerate(blocks(encode_dicts(rows), [], "b", "b")):
            block = PricedBlock(3, begin + number, value)
            client.insert_arrow("usage_events", to_insert(read(block)), LEDGER_COLUMNS)


@pytest.fixture(name="client")
def connected(ledger_settings: Settings) -> Iterator[ClickHouse]:
    client = connect(ledger_settings)
    yield client
    client.command("TRUNCATE TABLE usage_events")
    client.close()


def written(settings: Settings, version: str, file: Path) -> None:
    form = file.suffix.removeprefix(".")
    words = ["--focus", version, "--format", form, "--output", str(file), *SPAN]
    done = CliRunner().invoke(export, words, obj=settings)
    assert done.exit_code == 0, done.output


@pytest.mark.parametrize("calls", [1_000, pytest.param(34_000, marks=pytest.mark.nightly)])
def test_no_rule_of_1_2_fails_and_the_sum_is_that_of_the_calls(
    client: ClickHouse, ledger_settings: Settings, tmp_path: Path, calls: int
) -> None:
    fill(client, calls)
    written(ledger_settings, "1.2", tmp_path / "f.csv")
    written(ledger_settings, "1.2", tmp_path / "f.parquet")
    with (tmp_path / "f.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert (len(rows), len(rows[0])) == (3 * calls, 57)
    total = Decimal(sum(map(cost_nano, range(calls)))) / 10**9
    for name in ("BilledCost", "EffectiveCost", "ListCost", "ContractedCost"):
        assert sum(Decimal(row[name]) for row in rows) == total
    frame = pl.read_parquet(tmp_path / "f.parquet")
    assert failures(frame, "1.2") == []
    assert frame["BilledCost"].sum() == total


OF_0_5 = {
    "InvoiceIssuer_Required :: ColumnRequired",
    "Provider_Required :: ColumnRequired",
    "Publisher_Required :: ColumnRequired",
    "ResourceID_Required :: ColumnRequired",
    "SkuPriceId_Nullable :: SQLQueryCheck",
}
"""Rules in the validator's set for 1.0 that ask for columns by names of 0.5 (Publisher; ChargeType in the last one):
no file of 1.0 can keep them."""


def failed(file: Path, out: Path) -> set[str]:
    """Return the rules of FOCUS 1.0 that a file breaks, by the validator's report: its exit code is 0 all the same."""
    python = environments.python("focus", "focus-validator", "pandasql")
    words = ["--data-file", file, "--validate-version", "1.0", "--output-type", "unittest", "--output-destination", out]
    (packages,) = python.parents[1].glob("lib/python*/site-packages")  # it looks for its currencies below its folder
    run = [python, "-m", "focus_validator.main", *words]
    done = subprocess.run(run, cwd=packages, capture_output=True, text=True, check=False, timeout=500)
    assert out.exists(), done.stderr[-2_000:]
    cases = list(ET.parse(out).getroot().iter("testcase"))
    assert len(cases) > 40, "the validator has looked at nothing"
    wrong = [case for case in cases if case.find("failure") is not None or case.find("error") is not None]
    return {str(case.get("name")) for case in wrong} - OF_0_5


@pytest.mark.nightly
def test_the_validator_of_1_0_finds_nothing(client: ClickHouse, ledger_settings: Settings, tmp_path: Path) -> None:
    fill(client, 34_000)
    client.command("TRUNCATE TABLE registry")
    put(client, 1, SEATS, CREDIT)
    file = tmp_path / "f.csv"
    written(ledger_settings, "1.0", file)
    assert failed(file, tmp_path / "report.xml") == set()
    with file.open(encoding="utf-8", newline="") as text:
        every = list(csv.DictReader(text))
    assert [row["ChargeCategory"] for row in every[-2:]] == ["Credit", "Purchase"]
    rows = every[:300]
    out = io.StringIO(newline="")
    writer = csv.DictWriter(out, rows[0])
    writer.writeheader()
    writer.writerows({**row, "BillingCurrency": "usd", "ChargeFrequency": "Often"} for row in rows)
    (tmp_path / "broken.csv").write_text(out.getvalue(), encoding="utf-8")
    found = {name.partition(" ")[0] for name in failed(tmp_path / "broken.csv", tmp_path / "broken.xml")}
    assert found == {"BillingCurrency_IsCurrencyCode", "ChargeFrequency_Enum"}
