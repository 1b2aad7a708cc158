"""What guards read: records of prices, policies, spend and as_of, for a guard in memory or for the real topics."""

import asyncio
import json
from collections.abc import Iterable
from functools import lru_cache

from aiokafka import AIOKafkaProducer

from tests.exchange import dated
from tollmeter.producers.guard.guard import Guard
from tollmeter.schemas import topics
from tollmeter.schemas.access import Block, RateLimit
from tollmeter.schemas.policy import Member, Policy
from tollmeter.schemas.spend import AsOf, Spend, period_key
from tollmeter.settings import Settings
from tollmeter.streams.rules.limits.periods import period_of

NOON = 1_795_348_800
"""2026-11-22 12:00 UTC, seconds."""
USD = 1_000_000_000
"""Nano-USD."""
Record = tuple[str, str, bytes | None]
"""Topic, key, value."""


def book(**models: tuple[int, int]) -> Record:
    """Return a price book of OpenAI models: name = (input, output) pico-USD per token; "_" stands for "-"."""
    named = {name.replace("_", "-"): rates for name, rates in models.items()}
    rules = [
        {
            "rule_id": f"openai/{name}/standard",
            "provider": "openai",
            "model": name,
            "context": "",
            "rate_pico": {"input_tokens": rate_in, "output_tokens": rate_out},
            "priced": ["input_tokens", "output_tokens"],
            "source": "test",
        }
        for name, (rate_in, rate_out) in named.items()
    ]
    fx = [{"day": "2026-11-20", "currency": "EUR", "per_usd_nano": 900_000_000, "source": "test"}]
    document = {
        "price_book": "test",
        "rules": rules,
        "overrides": [],
        "fx": fx,
        "names": {
            "also_called": {},
            "providers": [
                {
                    "id": "openai",
                    "makes": {"starts_with": "gpt-"},
                    "sells_of": [],
                    "models": {name: {"equals": name} for name in named},
                }
            ],
        },
    }
    return topics.PRICES, "test", json.dumps(document).encode()


@lru_cache(maxsize=1)
def real_book() -> Record:
    """Return the book that PRICE publishes."""
    from tollmeter.streams.price.book.book import load
    from tollmeter.streams.price.book.publish import document

    key, value = document(load(dated()))
    return topics.PRICES, key.decode(), value


def policy(entry: Policy) -> Record:
    return topics.POLICIES, f"policy:{entry.policy_id}", entry.model_dump_json().encode()


def member(entry: Member) -> Record:
    return topics.POLICIES, f"member:{entry.member_id}", entry.model_dump_json().encode()


def access(entry: Block | RateLimit) -> Record:
    return topics.POLICIES, entry.key, entry.model_dump_json().encode()


def layout(priced: int = 4) -> Record:
    value = {"events": 4, "priced": priced, "hash": topics.HASH_VERSION}
    return topics.POLICIES, topics.LAYOUT_KEY.decode(), json.dumps(value).encode()


def spend(
    spent: int,
    limit: int = USD,
    *,
    org: str = "acme",
    scope: str = "org",
    name: str = "",
    window: str = "day",
    unit: str = "USD",
    stamp: int = 1,
    at_s: int = NOON,
    zone: str = "UTC",
    partitions: int = 4,
    usd_nano: int | None = None,
) -> Record:
    """Return the spend row of a scope in the period that holds `at_s`."""
    starts, ends = period_of(window, zone, at_s)
    row = Spend(
        partition=topics.org_partition(org, partitions),
        stamp=stamp,
        org_id=org,
        scope=scope,
        name=name,
        period=period_key(window, zone),
        starts_s=starts,
        ends_s=ends,
        unit=unit,  # type: ignore[arg-type]
        spent=spent,
        at_risk_nano=0,
        limit=limit,
        policy_id="p",
        remaining=max(0, limit - spent),
        percent=spent * 100 // limit,
        forecast=None,
        usd_nano=usd_nano,
    )
    return topics.SPEND, row.key, row.model_dump_json().encode()


def as_of(at_ms: int, *, org: str = "acme", stamp: int = 1, partitions: int = 4) -> Record:
    entry = AsOf(partition=topics.org_partition(org, partitions), stamp=stamp, as_of_ms=at_ms)
    return topics.SPEND, entry.key, entry.model_dump_json().encode()


_SOURCES = {topics.PRICES: "prices", topics.POLICIES: "policies", topics.SPEND: "spend"}


def feed(guard: Guard, *records: Record) -> None:
    """Give records to a guard in memory; each must be readable."""
    for topic, key, value in records:
        assert guard.apply(_SOURCES[topic], key, value), (topic, key)  # type: ignore[arg-type]


class Time:
    """A clock that is moved by hand: both hands of a guard, in nanoseconds."""

    def __init__(self, wall_s: float = NOON) -> None:
        self.wall = int(wall_s * 1e9)
        self.mono = 5_000_000_000_000

    def pass_(self, seconds: float) -> None:
        """Let time pass on both clocks."""
        self.wall += int(seconds * 1e9)
        self.mono += int(seconds * 1e9)

    def guard(self, **how: object) -> Guard:
        """Return a guard in memory that goes by this clock."""
        settings = how.pop("settings", Settings())
        return Guard(
            mode="memory",
            settings=settings,
            wall_ns=lambda: self.wall,
            monotonic_ns=lambda: self.mono,
            **how,  # type: ignore[arg-type]
        )


def publish(settings: Settings, records: Iterable[Record]) -> None:
    """Write records to the real topics; return when all are acknowledged."""
    asyncio.run(_publish(settings, list(records)))


async def _publish(settings: Settings, records: list[Record]) -> None:
    producer = AIOKafkaProducer(**settings.kafka_options(), acks="all", max_request_size=8_000_000)
    await producer.start()
    try:
        sent = [
            await producer.send(settings.topic(topic), value, key=key.encode(), partition=0)
            for topic, key, value in records
        ]
        await asyncio.gather(*sent)
    finally:
        await producer.stop()
