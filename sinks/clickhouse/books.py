"""A price book as rows: the rules and exchange rates that the ledger's rows name. Stored again, it is the same."""

import orjson

from tollmeter.sinks.clickhouse.client import ClickHouse


def store_book(client: ClickHouse, document: bytes) -> None:
    """Store a record of `usage.prices` in price_rules and fx_rates.

    Raises ValueError when it is none, and as `ClickHouse.insert_rows` does.
    """
    try:
        book = orjson.loads(document)
        name = book["price_book"]
        rules = [
            (name, rule["rule_id"], rule["provider"], rule["model"], orjson.dumps(rule).decode())
            for rule in book["rules"]
        ]
        rates = [(name, rate["day"], rate["currency"], rate["per_usd_nano"], rate["source"]) for rate in book["fx"]]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"not a price book: {type(error).__name__}: {error}") from None
    client.insert_rows("price_rules", ("price_book", "rule_id", "provider", "model", "rule"), rules)
    client.insert_rows("fx_rates", ("price_book", "day", "currency", "per_usd_nano", "source"), rates)
