"""Prices as people keep them: a dict of integer rates by provider, model, tier and processing, by size and hour.

Beside the prices stand the rates of the day for other currencies, as such a program reads them at its start.
"""

import json
import time
from typing import Any, NamedTuple

from tollmeter.schemas.money import NANO_PER_USD, round_half_even
from tollmeter.schemas.policy import SCOPE_COLUMNS
from tollmeter.settings import Settings
from tollmeter.streams.price.book.book import load
from tollmeter.streams.price.book.fx_history import load_rates
from tollmeter.streams.rules.pricing.fx import CURRENCIES, Rates
from tollmeter.streams.rules.pricing.model_names import Names
from tollmeter.streams.rules.pricing.rates import COMPONENTS, DAY_SECONDS, FREE, REQUESTS, Band
from tollmeter.traffic.models import MODELS

KINDS = {kind: field for kind, field in SCOPE_COLUMNS.items() if kind != "version"} | {
    "model": "model",
    "provider": "provider",
    "feature": "feature",
}
"""Kind of scope -> the event's own field: a plain program takes names as they come."""
COUNTERS = (
    ("input_tokens", "input_tokens"),
    ("cache_read_tokens", "cache_read_tokens"),
    ("cache_write_tokens", "cache_write_tokens"),
    ("cache_write_1h_tokens", "cache_write_1h_tokens"),
    ("output_tokens", "output_tokens"),
    ("reasoning_tokens", "output_reasoning_tokens"),
)
"""Counters of an event and the units that they are billed in."""


PARTS = tuple(f"cost_{component}_nano" for component in COMPONENTS)


class Leaf(NamedTuple):
    """One line of a bill: its component (place in COMPONENTS), pico-USD per unit, and the counts that are billed so."""

    component: int
    price: int
    terms: list[tuple[str, int]]
    """Counts with their sign: what is read from a cache is no plain input. None at all: one per call."""


class Step(NamedTuple):
    """The bill above so many input tokens, in these seconds of the day; no leaf: the model is free."""

    above: int
    from_second: int
    to_second: int
    leaves: list[Leaf]


Costs = tuple[int, list[int]]
"""The cost of a call and its five components, nano-USD."""
PlainRates = dict[str, list[Step]]


def rate_key(event: dict[str, Any]) -> str:
    return "|".join((event["provider"], event["model_used"], event["service_tier"], event["processing"]))


def costs(rates: PlainRates, event: dict[str, Any]) -> Costs | None:
    """Price one event by component; None when it used nothing or the model is not known."""
    if event["status"] == "BLOCKED":
        return 0, [0] * 5
    tokens, second, leaves = event["input_tokens"], event["occurred_at"] // 1_000_000 % DAY_SECONDS, None
    for above, from_second, to_second, lines in rates.get(rate_key(event), ()):
        if tokens > above and from_second <= second < to_second:
            leaves = lines
    if leaves is None:
        return None
    if not leaves:
        return 0, [0] * 5  # a free model
    used = used_units(event)
    if not used:
        return None
    pico = [0] * 5
    for component, price, terms in leaves:
        count = 0 if terms else 1
        for name, sign in terms:
            count += sign * int(used.get(name, 0))
        pico[component] += count * price
    total = round_half_even(sum(pico), 1_000)
    return total, _rounded(pico, total)


def _rounded(pico: list[int], total: int) -> list[int]:
    """Round the components so that they add up to the total: the largest remainders get what is short."""
    nano = [part // 1_000 for part in pico]
    short = total - sum(nano)
    if short:
        for place in sorted(range(5), key=lambda place: -(pico[place] % 1_000))[:short]:
            nano[place] += 1
    return nano


def used_units(event: dict[str, Any]) -> dict[str, float]:
    """Return what an event used, by the unit that it is billed in."""
    return {unit: event[counter] for counter, unit in COUNTERS if event[counter]} | event["extra_units"]


def in_currency(per_usd_nano: int, nano_usd: int) -> int:
    """Return an amount in nano units of another currency, half to even."""
    return round_half_even(nano_usd * per_usd_nano, NANO_PER_USD)


def currencies_of_today(settings: Settings) -> dict[str, int]:
    """Read the rates of the day out of the same file as the line: nano units of a currency for one USD.

    0 = no rate that is new enough.
    """
    today = int(time.time()) // DAY_SECONDS
    known = load_rates(settings.fx_file)
    found = {
        currency: Rates([rate for rate in known if rate.currency == currency]).at(today) for currency in CURRENCIES
    }
    return {
        currency: 0 if rate is None or today - rate[0] > settings.fx_max_age_days else rate[1]
        for currency, rate in found.items()
    }


def rates_of_today(settings: Settings) -> PlainRates:
    """Read the rates of every model of the traffic out of the price book, once, as such a program does at its start."""
    return rates_of_day(settings, int(time.time()) // DAY_SECONDS)


def rates_of_day(settings: Settings, day: int) -> PlainRates:
    """Return the rates of a day (days since 1970) by `rate_key`."""
    planner, weekday = load(settings).planner, 1 << (day + 3) % 7  # 1970-01-01 was a Thursday; Monday is bit 0
    found: PlainRates = {}
    for model in MODELS:
        for tier in ("", *model.tiers):
            for processing in ("REALTIME", "BATCH"):
                names = Names(
                    model.provider, model.used, model.sent, "", model.host, "", model.operation, tier, processing
                )
                steps = [
                    Step(band.above_input, band.from_second, band.to_second, _leaves(band))
                    for band in planner.plan(names).bands
                    if band.days[0] <= day < band.days[1] and band.weekdays & weekday
                ]
                if steps:
                    found["|".join((model.provider, model.used, tier, processing))] = steps
    return found


def _leaves(band: Band) -> list[Leaf]:
    if band.layer == FREE:
        return []
    return [
        Leaf(
            COMPONENTS.index(leaf.component), band.prices[leaf.unit], [] if leaf.unit == REQUESTS else list(leaf.terms)
        )
        for leaf in band.leaves
    ]


def dumps(rates: PlainRates) -> str:
    return json.dumps(rates)


def loads(text: str) -> PlainRates:
    return {
        key: [Step(above, since, until, [Leaf(*leaf) for leaf in leaves]) for above, since, until, leaves in steps]
        for key, steps in json.loads(text).items()
    }
