"""A price book stored from its own record: every rule that a row may name can be looked up."""

import json

import pytest

from tollmeter.settings import Settings
from tollmeter.sinks.clickhouse.books import store_book
from tollmeter.sinks.clickhouse.client import connect
from tollmeter.streams.price.book.book import load
from tollmeter.streams.price.book.publish import document, fx_rows, rule_of, rules


@pytest.mark.stack
def test_the_whole_book_is_stored_once(ledger_settings: Settings) -> None:
    book = load(ledger_settings)
    client = connect(ledger_settings)
    for _ in range(2):
        store_book(client, document(book)[1])
    stored = client.query(
        "SELECT rule_id, provider, model, rule FROM price_rules FINAL WHERE price_book = {b:String}", {"b": book.id}
    )
    expected = {band.rule_id: json.loads(json.dumps(rule_of(band))) for band in rules(book)}
    assert {row["rule_id"]: json.loads(row["rule"]) for row in stored} == expected
    rates = client.query("SELECT day, currency, per_usd_nano, source FROM fx_rates FINAL ORDER BY day, currency")
    client.close()
    assert rates == sorted(fx_rows(book), key=lambda row: (row["day"], row["currency"]))


@pytest.mark.parametrize("value", [b"", b"\xff", b"[]", b"{}", b'{"price_book":"x","rules":[{}],"fx":[]}'])
def test_what_is_no_book_is_refused(value: bytes) -> None:
    with pytest.raises(ValueError, match="not a price book"):
        store_book(None, value)  # type: ignore[arg-type]
