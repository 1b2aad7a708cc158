"""Prices as people keep them: a dict of integer rates by provider, model, tier and processing, by size and hour."""

import json
import time
from typing import Any, NamedTuple

from tollmeter.schemas.money import pico_to_nano
from tollmeter.settings import Settings
from tollmeter.streams.prices.book import load
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


Rates = dict[str, list[Step]]


def rate_key(event: dict[str, Any]) -> str:
    return "|".join((event["provider"], event["model_used"], event["service_tier"], event["processing"]))


def cost_nano(rates: Rates, event: dict[str, Any]) -> int | None:
    """Price one event; None when it used nothing or the model is not known."""
    if event["status"] == "BLOCKED":
        return 0
    tokens, second, units = event["input_tokens"], event["occurred_at"] // 1_000_000 % DAY_SECONDS, None
    for above, from_second, to_second, prices in rates.get(rate_key(event), ()):
        if tokens > above and from_second <= second < to_second:
            units = prices
    if units is None:
        return None
    if not units:
        return 0  # a free model
    used = {unit: event[counter] for counter, unit in COUNTERS if event[counter]} | event["extra_units"]
    if not used:
        return None
    return pico_to_nano(sum(int(count) * units.get(unit, 0) for unit, count in used.items()))


def rates_of_today(settings: Settings) -> Rates:
    """Read the rates of every model of the traffic out of the price book, once, as such a program does at its start."""
    planner, today = load(settings).planner, int(time.time()) // DAY_SECONDS
    found: Rates = {}
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


def dumps(rates: Rates) -> str:
    return json.dumps(rates)


def loads(text: str) -> Rates:
    return {key: [Step(*step) for step in steps] for key, steps in json.loads(text).items()}
