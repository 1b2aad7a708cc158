"""The price list: the rules of the price book that PRICE published last, as USD per million tokens or per unit."""

import asyncio
from datetime import datetime
from decimal import Decimal
from typing import Any

from aiokafka import TopicPartition
from aiokafka.errors import KafkaError

from tollmeter.broker.client import BrokerAway, kafka_consumer, read_between
from tollmeter.broker.policies import PolicyError
from tollmeter.schemas import topics
from tollmeter.schemas.json_values import loads
from tollmeter.schemas.money import PICO_PER_USD
from tollmeter.schemas.names import plain_model, plain_provider
from tollmeter.settings import Settings

_PARTS_OF = {
    "cache_read_tokens": "input_tokens",
    "cache_write_tokens": "input_tokens",
    "cache_write_1h_tokens": "cache_write_tokens",
    "reasoning_tokens": "output_tokens",
}
"""Published rates are marginal: what a part costs beyond the whole that it is counted in."""
_KEPT = (
    "provider",
    "model",
    "context",
    "source",
    "rule_id",
    "valid_from",
    "valid_to",
    "above_input",
    "from_second",
    "to_second",
    "weekdays",
    "without_tokens",
    "at_most_pct",
    "partial",
    "free",
)
Row = dict[str, Any]


def price_list(settings: Settings, at: datetime, model: str = "", provider: str = "") -> Row:
    """Return the rules in force on a day, of a model or a provider or all. Raises `PolicyError`."""
    try:
        book = asyncio.run(_published(settings))
    except (KafkaError, OSError) as error:
        raise PolicyError(str(BrokerAway(settings, error))) from None
    day = f"{at:%Y-%m-%d}"
    rules = [
        _row(rule)
        for rule in book["rules"]
        if rule.get("valid_from", "") <= day < rule.get("valid_to", "9999")
        and (not model or plain_model(model) == plain_model(rule["model"]))
        and (not provider or plain_provider(provider) == rule["provider"])
    ]
    rules.sort(key=lambda row: (row["provider"], row["model"], row["context"], row.get("above_input", -1)))
    return {"price_book": book["price_book"], "at": at.isoformat(), "currency": "USD", "prices": rules}


def _row(rule: Row) -> Row:
    rates = {unit: _whole(rule["rate_pico"], unit) for unit in rule["rate_pico"] if unit in rule["priced"]}
    tokens = {unit: _usd(rate * 1_000_000) for unit, rate in rates.items() if unit.endswith("_tokens")}
    others = {unit: _usd(rate) for unit, rate in rates.items() if not unit.endswith("_tokens")}
    kept = {name: rule[name] for name in _KEPT if name in rule}
    return {**kept, "usd_per_mtok": tokens, **({"usd_per_unit": others} if others else {})}


def _whole(rates: dict[str, int], unit: str) -> int:
    """Return the full rate of a unit in pico-USD from the marginal ones."""
    parent = _PARTS_OF.get(unit)
    return rates.get(unit, 0) + (_whole(rates, parent) if parent else 0)


def _usd(pico: int) -> float:
    return float(Decimal(pico) / PICO_PER_USD)


async def _published(settings: Settings) -> Row:
    place = TopicPartition(settings.topic(topics.PRICES), 0)
    async with kafka_consumer(settings) as consumer:
        end = (await consumer.end_offsets([place]))[place] if place.topic in await consumer.topics() else 0
        records = [record async for record in read_between(consumer, place, max(0, end - 1), end)]
    value = records[-1].value if records else None
    if value is None:
        raise PolicyError("PRICE has published no prices yet: is it running?")
    book: Row = loads(value)
    return book
