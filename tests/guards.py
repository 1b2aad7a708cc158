"""A real guard that knows what a test feeds it: the price book that ships with the package, policies, blocks, rates."""

from functools import cache
from typing import Any

from tests.exchange import dated
from tollmeter.producers.guard.guard import Guard
from tollmeter.schemas.access import Block, RateLimit
from tollmeter.schemas.model_rules import ModelRule
from tollmeter.schemas.policy import Policy
from tollmeter.settings import Settings
from tollmeter.streams.price.book.book import PriceBook, load
from tollmeter.streams.price.book.publish import document


@cache
def shipped_book() -> PriceBook:
    """The price book that ships with the package."""
    return load(dated())


@cache
def price_record() -> tuple[bytes, bytes]:
    """Key and value of its record in `usage.prices`."""
    return document(shipped_book())


def guard_with(*rows: Policy | Block | RateLimit | ModelRule, **options: Any) -> Guard:
    """Return a guard with prices and these rows."""
    guard = Guard(mode="memory", settings=Settings(), **options)
    assert guard.apply("prices", *price_record())
    for row in rows:
        key = f"policy:{row.policy_id}" if isinstance(row, Policy) else row.key
        assert guard.apply("policies", key.encode(), row.model_dump_json().encode())
    return guard
