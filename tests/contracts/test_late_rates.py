"""Rates that come late fill in amounts of past days: exact, once, resumable, as corrections, prices untouched."""

import os
import signal
import subprocess
import sys
from datetime import UTC, date, datetime, timedelta
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from tests.contracts.test_reprice import Record, stored
from tests.usage_rows import avro, fields
from tollmeter.admin import reprice as past
from tollmeter.admin.late_rates import Filled, fill
from tollmeter.schemas.event import micros
from tollmeter.settings import Settings
from tollmeter.sinks.clickhouse.client import ClickHouse, connect
from tollmeter.streams.price.batch import price_batch
from tollmeter.streams.price.book.book import PriceBook, load
from tollmeter.streams.price.book.fx import rate_of
from tollmeter.streams.rules.pricing.fx import Rate
from tollmeter.streams.rules.records.decode import LEDGER_COLUMNS, PricedBlock, read, to_insert
from tollmeter.streams.rules.records.encode import blocks, encode_dicts
from tollmeter.streams.rules.windows.amend import Part

pytestmark = pytest.mark.stack

DAY = date(2026, 11, 20)
ROWS = 1_200
"""A call of gpt-4o each 250 seconds from the 19th on, every third of an unknown model: 3.5 days."""
BEFORE = [rate_of(("2026-11-05", "EUR", "1.25", "", "x")), rate_of(("2026-11-19", "RUB", "", "80", "x"))]
LATE = [rate_of(("2026-11-20", "EUR", "1.60", "", "x")), rate_of(("2026-11-21", "EUR", "1.25", "", "x"))]


def book(rates: list[Rate]) -> PriceBook:
    found = load(Settings())
    found.use_rates(rates)
    return found


def event(number: int) -> dict[str, Any]:
    at = datetime(2026, 11, 19, tzinfo=UTC) + timedelta(seconds=250 * number)
    model = "no-such-model" if number % 3 == 0 else "gpt-4o"
    return fields(number, org_id=f"org{number % 2}", model_sent=model, occurred_at=micros(at), input_tokens=1_000)


@pytest.fixture(name="client")
def connected(ledger_settings: Settings) -> Any:
    client = connect(ledger_settings)
    for table in ("usage_events", "fx_rates"):
        client.command(f"TRUNCATE TABLE {table}")
    rows = price_batch([[Record(at, avro(event(at))) for at in range(ROWS)]], book(BEFORE)).rows
    for number, (value, _) in enumerate(blocks(encode_dicts(rows), [], "b", "b")):
        client.insert_arrow("usage_events", to_insert(read(PricedBlock(3, number, value))), LEDGER_COLUMNS)
    yield client
    client.close()


def amounts(client: ClickHouse) -> list[dict[str, Any]]:
    return client.query(
        "SELECT toDate(event_time) AS day, revision, cost_nano, at_risk_nano, cost_eur_nano, at_risk_eur_nano,"
        " cost_rub_nano, at_risk_rub_nano, fx_date, fx_eur_date, fx_rub_date, rule_id"
        " FROM usage_events FINAL ORDER BY event_time"
    )


def in_eur(nano: int | None, day: date, margin: Fraction = Fraction(1)) -> int | None:
    per_eur = Fraction(16, 10) if day == date(2026, 11, 20) else Fraction(5, 4)
    return None if nano is None else round(nano / per_eur * margin)


def test_before_they_come_amounts_are_unknown_and_limits_count_the_last_rate_and_a_margin(client: ClickHouse) -> None:
    for row in amounts(client):
        margin = Fraction(105, 100)
        assert (row["cost_eur_nano"], row["fx_eur_date"], row["fx_rub_date"]) == (None, None, date(2026, 11, 19))
        worth = row["cost_nano"] if row["at_risk_nano"] is None else row["at_risk_nano"]
        assert row["at_risk_eur_nano"] == round(worth / Fraction(5, 4) * margin)
        assert (row["cost_rub_nano"], row["fx_date"]) == (
            row["cost_nano"] and 80 * row["cost_nano"],
            date(2026, 11, 19),
        )


@pytest.mark.parametrize("stop", [1, 2, 3, None])
def test_stopped_anywhere_and_run_again_it_is_exact(
    client: ClickHouse, stop: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(past, "SLICE_ROWS", 100)
    before = amounts(client)
    late, sent = book([*BEFORE, *LATE]), 0

    class Stopped(Exception):  # noqa: N818 - as killed
        pass

    def send(parts: list[Part]) -> None:
        nonlocal sent
        sent += 1
        stored(client, parts, 1_000 + 10 * sent)
        if sent == stop:
            stored(client, parts, 5_000)  # and delivered again
            raise Stopped

    def run() -> Filled:
        return fill(client, late, send, lambda count: None)

    if stop is not None:
        with pytest.raises(Stopped):
            run()
    found = run()
    after = amounts(client)
    waited = [row["day"] >= DAY for row in before]
    assert found.calls == sum(waited) or stop is not None
    for was, now, waits in zip(before, after, waited, strict=True):
        if not waits:  # the 19th has no rate of its time to this day
            assert now == was
            continue
        rated = min(now["day"], date(2026, 11, 21))
        assert (now["revision"], now["fx_eur_date"], now["fx_date"]) == (was["revision"] + 1, rated, date(2026, 11, 19))
        assert now["cost_eur_nano"] == in_eur(was["cost_nano"], rated)
        assert now["at_risk_eur_nano"] == in_eur(was["at_risk_nano"], rated)
        same = ("cost_nano", "at_risk_nano", "cost_rub_nano", "at_risk_rub_nano", "fx_rub_date", "rule_id")
        assert [now[name] for name in same] == [was[name] for name in same]
    assert run().calls == 0
    assert amounts(client) == after
    days = client.query("SELECT DISTINCT day, per_usd_nano FROM fx_rates FINAL WHERE currency = 'EUR' ORDER BY day")
    assert [(row["day"], row["per_usd_nano"]) for row in days] == [
        (date(2026, 11, 20), 625_000_000),
        (date(2026, 11, 21), 800_000_000),
    ]
    assert found.days or stop is not None


KILLED = """
import os, signal
from tests.contracts import test_late_rates as here
from tollmeter.admin import reprice
from tollmeter.settings import Settings
from tollmeter.sinks.clickhouse.client import connect

reprice.SLICE_ROWS, sent = 100, 0
names = ("clickhouse", "clickhouse_user", "clickhouse_database", "clickhouse_password")
client = connect(Settings(**{{name: os.environ[name] for name in names}}))

def send(parts):
    global sent
    sent += 1
    here.stored(client, parts, 1_000 + 10 * sent)
    if sent == {stop}:
        os.kill(os.getpid(), signal.SIGKILL)

here.fill(client, here.book([*here.BEFORE, *here.LATE]), send, lambda count: None)
"""


@pytest.mark.parametrize("stop", [1, 3])
def test_killed_anywhere_and_run_again_it_is_exact(
    client: ClickHouse, ledger_settings: Settings, stop: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that is killed has stored what it sent and nothing else; the next one ends at the same amounts."""
    before = amounts(client)
    password = ledger_settings.clickhouse_password.get_secret_value()
    names = ("clickhouse", "clickhouse_user", "clickhouse_database")
    told = {name: str(getattr(ledger_settings, name)) for name in names}
    done = subprocess.run(
        [sys.executable, "-c", KILLED.format(stop=stop)],
        cwd=Path(__file__).parents[2],
        env={**os.environ, **told, "clickhouse_password": password},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    some = sum(now["revision"] > was["revision"] for now, was in zip(amounts(client), before, strict=True))
    waiting = sum(row["day"] >= DAY for row in before)
    assert 0 < some < waiting, "it was killed in the middle"
    monkeypatch.setattr(past, "SLICE_ROWS", 100)
    late = book([*BEFORE, *LATE])

    def send(parts: list[Part]) -> None:
        stored(client, parts, 9_000)

    assert fill(client, late, send, lambda count: None).calls == waiting - some
    for was, now in zip(before, amounts(client), strict=True):
        if was["day"] < DAY:
            assert now == was
            continue
        rated = min(now["day"], date(2026, 11, 21))
        assert (now["revision"], now["fx_eur_date"]) == (was["revision"] + 1, rated)
        assert now["cost_eur_nano"] == in_eur(was["cost_nano"], rated)
        assert now["at_risk_eur_nano"] == in_eur(was["at_risk_nano"], rated)
        assert (now["cost_nano"], now["cost_rub_nano"]) == (was["cost_nano"], was["cost_rub_nano"])


def test_rows_of_format_1_keep_what_they_have(client: ClickHouse) -> None:
    client.command(
        "ALTER TABLE usage_events UPDATE fx_eur_date = NULL, fx_rub_date = NULL WHERE 1 SETTINGS mutations_sync = 2"
    )
    assert fill(client, book([BEFORE[1], *LATE]), lambda parts: None, lambda count: None).days == (
        date(2026, 11, 20),
        date(2026, 11, 21),
        date(2026, 11, 22),
    )
    client.command(
        "ALTER TABLE usage_events UPDATE cost_eur_nano = 1 WHERE cost_nano IS NOT NULL SETTINGS mutations_sync = 2"
    )
    assert fill(client, book([*BEFORE, *LATE]), lambda parts: None, lambda count: None).calls == 0
