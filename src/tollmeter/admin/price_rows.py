"""The rules of the price book for people: a row of rates per million tokens, and the conditions of each."""

from decimal import Decimal
from typing import Any

from tollmeter.schemas.money import PICO_PER_USD
from tollmeter.streams.price.book.lookup import Listed
from tollmeter.streams.price.book.overrides import WEEKDAYS
from tollmeter.streams.price.book.publish import rule_of
from tollmeter.streams.rules.pricing import rates
from tollmeter.streams.rules.pricing.rates import COUNTERS, DAY_SECONDS, EVERY_DAY, FREE, Band, clock_text


def rule_document(listed: Listed) -> dict[str, Any]:
    """Return a rule as the JSON output has it."""
    return {
        **rule_of(listed.band),
        "sold_by": listed.provider,
        "tier": listed.tier,
        "in_force": listed.in_force,
        "partial": listed.partial,
        "usd_per_unit": {unit: plain_amount(price, PICO_PER_USD) for unit, price in listed.band.prices.items()},
    }


def rule_row(listed: Listed) -> dict[str, Any]:
    """Return a rule as a table has it: USD per million tokens, or "free"; None where it says nothing of a count."""
    band = listed.band
    row: dict[str, Any] = {"provider": listed.provider, "tier": listed.tier, "for": _conditions(band)}
    if band.layer == FREE:
        return row | dict.fromkeys(("input", "cached", "written", "written 1h", "output"), "free") | {"other": ""}
    tokens = (rates.INPUT, rates.CACHE_READ, rates.CACHE_WRITE, rates.CACHE_WRITE_1H, rates.OUTPUT)
    for name, unit in zip(("input", "cached", "written", "written 1h", "output"), tokens, strict=True):
        row[name] = _per_million(band, unit)
    others = [unit for unit in band.prices if unit not in COUNTERS or unit == rates.REASONING]
    return row | {"other": ", ".join(_other(band, unit) for unit in others)}


def _conditions(band: Band) -> str:
    parts = []
    if band.above_input >= 0:
        parts.append(f"input > {band.above_input:,}")
    if (band.from_second, band.to_second) != (0, DAY_SECONDS):
        parts.append(f"{clock_text(band.from_second)}-{clock_text(band.to_second)}")
    if band.weekdays != EVERY_DAY:
        parts.append(" ".join(day for bit, day in enumerate(WEEKDAYS) if band.weekdays >> bit & 1))
    if band.without_tokens:
        parts.append("no tokens reported")
    if band.valid_from or band.valid_to:
        parts.append(f"{band.valid_from or ''} .. {band.valid_to or ''}")
    return "; ".join(parts) or "every call"


def _per_million(band: Band, unit: str) -> str | None:
    return plain_amount(band.prices[unit] * 1_000_000, PICO_PER_USD) if unit in band.prices else None


def _other(band: Band, unit: str) -> str:
    if unit.endswith("_tokens"):
        return f"{unit} {_per_million(band, unit)}"
    return f"{unit} {plain_amount(band.prices[unit], PICO_PER_USD)} each"


def plain_amount(amount: int, unit: int) -> str:
    """Return an amount that is so many parts of a whole, exact, without trailing zeros."""
    text = f"{Decimal(amount) / unit:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
