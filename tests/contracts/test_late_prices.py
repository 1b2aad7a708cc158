"""Models that had no price: priced once a book knows them; exact, once, resumable, the rest untouched."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from tests.contracts.test_reprice import Record, stored
from tests.exchange import dated
from tests.usage_rows import avro, fields
from tollmeter.admin import reprice as past
from tollmeter.admin.late_prices import Priced, fill
from tollmeter.cli.prices_fill import fill as fill_command
from tollmeter.cli.reprice import reprice
from tollmeter.schemas.event import micros
from tollmeter.settings import Settings
from tollmeter.sinks.clickhouse.client import ClickHouse, connect
from tollmeter.streams.ledger.self_check import price_missing
from tollmeter.streams.price.batch import price_batch
from tollmeter.streams.price.book.book import PriceBook, load
from tollmeter.streams.rules.records.decode import LEDGER_COLUMNS, PricedBlock, read, to_insert
from tollmeter.streams.rules.records.encode import blocks, encode_dicts
from tollmeter.streams.rules.windows.amend import Part

pytestmark = pytest.mark.stack

AT = datetime(2026, 11, 19, tzinfo=UTC)
ROWS = 1_200
MODELS = ("gpt-4o", "later-1", "never-1")
"""A call each 250 seconds, in turn of a known model, of one that is known later, and of one that never is: 3.5 days."""
BOOK = """version: 1
rates:
  - {name: later, provider: own, model: later-1, source: contract, usd_per_mtok: {input_tokens: 2, output_tokens: 8}}
  - {name: cheap, provider: openai, model: gpt-4o, source: contract, usd_per_mtok: {input_tokens: 1, output_tokens: 1}}
"""
LATER_NANO = 1_000 * 2_000 + 100 * 8_000


def event(number: int) -> dict[str, Any]:
    model = MODELS[number % 3]
    return fields(
        number,
        org_id=f"org{number % 2}",
        provider="openai" if model == "gpt-4o" else "own",
        model_sent=model,
        model_used="",
        occurred_at=micros(AT + timedelta(seconds=250 * number)),
        input_tokens=1_000,
        cache_read_tokens=0,
        cache_write_tokens=0,
        cache_write_1h_tokens=0,
        reasoning_tokens=0,
        output_tokens=100,
        service_tier="",
        processing="REALTIME",
        extra_units={},
    )


@pytest.fixture(name="client")
def connected(ledger_settings: Settings) -> Any:
    client = connect(ledger_settings)
    for table in ("usage_events", "price_rules"):
        client.command(f"TRUNCATE TABLE {table}")
    rows = price_batch([[Record(at, avro(event(at))) for at in range(ROWS)]], load(dated())).rows
    for number, (value, _) in enumerate(blocks(encode_dicts(rows), [], "b", "b")):
        client.insert_arrow("usage_events", to_insert(read(PricedBlock(3, number, value))), LEDGER_COLUMNS)
    yield client
    client.close()


@pytest.fixture(name="later")
def later_book(tmp_path: Path) -> PriceBook:
    (tmp_path / "own.yaml").write_text(BOOK, encoding="utf-8")
    return load(dated().model_copy(update={"prices_file": str(tmp_path / "own.yaml")}))


def whole(client: ClickHouse) -> list[dict[str, Any]]:
    return client.query(
        "SELECT model_id, revision, cost_nano, price_status, price_book FROM usage_events FINAL ORDER BY event_time"
    )


@pytest.mark.parametrize("stop", [1, 2, 5, None])
def test_stopped_anywhere_and_run_again_it_is_exact(
    client: ClickHouse, later: PriceBook, stop: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(past, "SLICE_ROWS", 60)
    before, sent = whole(client), 0

    class Stopped(Exception):  # noqa: N818 - as killed
        pass

    def send(parts: list[Part]) -> None:
        nonlocal sent
        sent += 1
        stored(client, parts, 1_000 + 10 * sent)
        if sent == stop:
            stored(client, parts, 5_000)  # and delivered again
            raise Stopped

    def run() -> Priced:
        return fill(client, later, send, past.Pace(None), lambda count: None)

    if stop is not None:
        with pytest.raises(Stopped):
            run()
    found = run()
    after = whole(client)
    for number, (was, now) in enumerate(zip(before, after, strict=True)):
        if MODELS[number % 3] == "later-1":
            assert (was["cost_nano"], was["price_status"]) == (None, "UNKNOWN_MODEL")
            assert (now["cost_nano"], now["price_status"], now["revision"]) == (LATER_NANO, "OVERRIDE", 1)
            assert now["price_book"] == later.id
        else:  # what has a cost keeps it, though the book has another price by now; what nobody knows stays unknown
            assert now == was
    assert (found.calls, found.models) == (ROWS // 3, ("later-1",)) or stop is not None
    assert run().calls == 0
    assert whole(client) == after


def test_before_a_process_is_started_it_is_asked_whether_any_call_waits(
    client: ClickHouse, ledger_settings: Settings
) -> None:
    assert price_missing(ledger_settings)
    client.command("DELETE FROM usage_events WHERE cost_nano IS NULL")
    assert whole(client)
    assert not price_missing(ledger_settings)


def test_nothing_is_priced_with_a_book_that_no_worker_works_with(
    client: ClickHouse, ledger_settings: Settings, tmp_path: Path
) -> None:
    (tmp_path / "own.yaml").write_text(BOOK, encoding="utf-8")
    settings = ledger_settings.model_copy(update={"prices_file": str(tmp_path / "own.yaml")})
    done = CliRunner().invoke(fill_command, [], obj=settings)
    assert (done.exit_code, "no PRICE worker has published" in done.output) == (0, True), done.output
    assert sum(row["cost_nano"] is None for row in whole(client)) == 2 * ROWS // 3


@pytest.mark.parametrize(
    ("command", "words"),
    [(fill_command, []), (reprice, ["--from", "2026-11-19", "--dry-run"])],
    ids=["fill", "reprice"],
)
def test_another_book_than_the_one_that_was_named_is_refused(
    ledger_settings: Settings, command: Any, words: list[str]
) -> None:
    done = CliRunner().invoke(command, [*words, "--book", "genai-prices-0123456789ab"], obj=ledger_settings)
    assert done.exit_code == 2
    assert "the price book here is" in done.output
    assert "not genai-prices-0123456789ab" in done.output
