"""Prices as people keep them: a dict of integer rates by provider, model, tier and processing, by size and hour.

Beside the prices stand the rates of the day for other currencies, as such a program reads them at its start.
"""

import json
import time
from typing import Any, NamedTuple

from tollmeter.schemas.money import NANO_PER_USD, pico_to_nano, round_half_even
from tollmeter.settings import Settings
from tollmeter.streams.prices.book import load
from tollmeter.streams.prices.fx import load_rates
from tollmeter.streams.rules.fx import CURRENCIES, Rates
from tollmeter.streams.rules.names import Names
from tollmeter.streams.rules.rates import DAY_SECONDS
from tollmeter.traffic.models import MODELS

COUNTERS = (
    ("input_tokens", "input_tokens"),
    ("cache_read_tokens", "cache_read_tokens"),
    ("cache_write_tokens", "cache_write_tokens"),
    ("cache_write_1h_tokens", "cache_write_1h_tokens"),
    ("output_tokens", "output_tokens"),
    ("reasoning_tokens", "output_reasoning_tokens"),
)
"""Counters of an event and the units that they are billed in."""


class Step(NamedTuple):
    """Pico-USD per unit, above so many input tokens, in these seconds of the day."""

    above: int
    from_second: int
    to_second: int
    units: dict[str, int]


PlainRates = dict[str, list[Step]]


def rate_key(event: dict[str, Any]) -> str:
    return "|".join((event["provider"], event["model_used"], event["service_tier"], event["processing"]))


def units_of(rates: PlainRates, event: dict[str, Any]) -> dict[str, int] | None:
    """Return the rates in force for an event, empty for a free model; None when the model is not known."""
    tokens, second, units = event["input_tokens"], event["occurred_at"] // 1_000_000 % DAY_SECONDS, None
    for above, from_second, to_second, prices in rates.get(rate_key(event), ()):
        if tokens > above and from_second <= second < to_second:
            units = prices
    return units


def cost_nano(rates: PlainRates, event: dict[str, Any]) -> int | None:
    """Price one event; None when it used nothing or the model is not known."""
    if event["status"] == "BLOCKED":
        return 0
    units = units_of(rates, event)
    if units is None:
        return None
    if not units:
        return 0  # a free model
    used = used_units(event)
    if not used:
        return None
    return pico_to_nano(sum(int(count) * units.get(unit, 0) for unit, count in used.items()))


def used_units(event: dict[str, Any]) -> dict[str, float]:
    """Return what an event used, by the unit that it is billed in."""
    return {unit: event[counter] for counter, unit in COUNTERS if event[counter]} | event["extra_units"]


def in_currency(per_usd_nano: int, nano_usd: int) -> int:
    """Return an amount in nano units of another currency, half to even."""
    return round_half_even(nano_usd * per_usd_nano, NANO_PER_USD)


def currencies_of_today(settings: Settings) -> dict[str, int]:
    """Read the rates of the day out of the same file as the line: nano units of a currency for one USD."""
    today = int(time.time()) // DAY_SECONDS
    known = load_rates(settings.fx_file)
    found = {
        currency: Rates([rate for rate in known if rate.currency == currency]).at(today) for currency in CURRENCIES
    }
    return {currency: rate[1] for currency, rate in found.items() if rate is not None}


def rates_of_today(settings: Settings) -> PlainRates:
    """Read the rates of every model of the traffic out of the price book, once, as such a program does at its start."""
    planner, today = load(settings).planner, int(time.time()) // DAY_SECONDS
    found: PlainRates = {}
    for model in MODELS:
        for tier in ("", *model.tiers):
            for processing in ("REALTIME", "BATCH"):
                names = Names(
                    model.provider, model.used, model.sent, "", model.host, "", model.operation, tier, processing
                )
                steps = [
                    Step(band.above_input, band.from_second, band.to_second, band.rates)
                    for band in planner.plan(names).bands
                    if band.days[0] <= today < band.days[1]
                ]
                if steps:
                    found["|".join((model.provider, model.used, tier, processing))] = steps
    return found


def dumps(rates: PlainRates) -> str:
    return json.dumps(rates)


def loads(text: str) -> PlainRates:
    return {key: [Step(*step) for step in steps] for key, steps in json.loads(text).items()}
