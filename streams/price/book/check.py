"""Compares the compiled table with the library's own calculation, to the last digit, on random usage.

Every model, every context, every date and hour edge; the library computes with `Decimal`, we with integer rates. Only
a rate that is no whole number of pico-USD may differ, by half a pico-USD per unit and leaf.
"""

import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from fractions import Fraction

from genai_prices import Usage
from genai_prices.types import ModelInfo, Provider, TieredPrices

from tollmeter.schemas.event import micros
from tollmeter.schemas.money import MAX_EVENT_NANO, PICO_PER_USD
from tollmeter.streams.price.book.compile import (
    LATTICE,
    PROVIDERS,
    UNIT_OF_PRICE,
    Context,
    compile_model,
    context_name,
    contexts,
    utc_second,
)
from tollmeter.streams.price.book.compile import constraints as constraints_of
from tollmeter.streams.price.book.plans import MINIMUM_SECONDS
from tollmeter.streams.rules.pricing.price_one import Call, Plan, band_at, component_pico, counts_of, price_one, to_nano
from tollmeter.streams.rules.pricing.rates import COUNTERS, DAY_SECONDS, INPUT, REQUESTS, Band

EQUAL, ROUNDED, DIFFERENT, UNPRICED, UNLISTED = (
    "equal",
    "within rounding of a non-integer rate",
    "different",
    "model without price",
    "tier before it was listed",
)
SIZES = (5_000, 150_000, 700_000)


@dataclass(slots=True)
class Outcome:
    """How the comparison went."""

    counts: Counter[str] = field(default_factory=Counter)
    differences: list[str] = field(default_factory=list)


def models() -> list[tuple[Provider, ModelInfo]]:
    """Return what there is to check."""
    return [(provider, model) for provider in PROVIDERS for model in provider.models]


def check(rounds: int, seed: int = 7, done: Callable[[int], None] = lambda _: None) -> Outcome:
    """Compare `rounds` random calls per model and context; `done(1)` is called after each model."""
    rng, outcome = random.Random(seed), Outcome()
    for provider, model in models():
        bands = list(compile_model(provider.id, model))
        for context in contexts(model):
            own = [band for band in bands if band.context == context_name(context)]
            for at in _instants(rng, model, rounds):
                verdict, text = _compare(rng, provider, model, context, own, at)
                outcome.counts[verdict] += 1
                if verdict == DIFFERENT:
                    outcome.differences.append(text)
        done(1)
    return outcome


def _instants(rng: random.Random, model: ModelInfo, rounds: int) -> Iterator[datetime]:
    limits = constraints_of(model)
    days = [date(2026, 11, 22)]
    edges = [0]
    for limit in limits:
        if hasattr(limit, "start_date"):
            days += [limit.start_date, limit.start_date - timedelta(days=1)]
        else:
            seconds = [utc_second(limit.start_time), utc_second(limit.end_time)]
            edges += [*seconds, *((second - 1) % DAY_SECONDS for second in seconds)]
    for _ in range(rounds):
        day, second = rng.choice(days), rng.choice([rng.randrange(DAY_SECONDS), *edges])
        yield datetime(day.year, day.month, day.day, tzinfo=UTC) + timedelta(seconds=second)


def _compare(
    rng: random.Random, provider: Provider, model: ModelInfo, context: Context, bands: list[Band], at: datetime
) -> tuple[str, str]:
    price = model.get_prices(at, dict(context))
    listed = {key: value for key, value in vars(price).items() if value is not None and key in UNIT_OF_PRICE}
    if not listed:
        return (DIFFERENT if bands else UNPRICED), f"{provider.id}/{model.id}: we have a price, the library none"
    units = {UNIT_OF_PRICE[key].key for key in listed} - {REQUESTS}
    if any(isinstance(value, TieredPrices) for value in listed.values()):
        units.add(INPUT)
    usage = _usage(rng, sorted(units))
    theirs = model.calc_price(Usage(**usage), provider, genai_request_timestamp=at, price_context=dict(context) or None)
    wanted = Fraction(theirs.total_price) * PICO_PER_USD
    plan = Plan(tuple(bands), minimum_seconds=MINIMUM_SECONDS.get((provider.id, model.id), 0))
    call = _call(at, usage)
    band = band_at(plan.bands, call.at_us, call.tokens)
    if band is not None and context and at.date() < (band.sure_from or at.date()):
        return UNLISTED, ""
    parts = component_pico(band, counts_of(plan, call, band)) if band else None
    text = f"{provider.id}/{model.id} {context_name(context) or 'standard'} {at:%Y-%m-%dT%H:%M:%SZ} {usage}"
    if band is None or parts is None:
        return DIFFERENT, f"{text}: the library has a price of {wanted} pico-USD, we have none"
    got = sum(parts)
    if got != wanted and (band.exact or abs(got - wanted) > sum(usage.values())):
        return DIFFERENT, f"{text}: {float(got)} pico-USD here, {float(wanted)} there"
    amounts = price_one(plan, call)
    if to_nano(got) <= MAX_EVENT_NANO and usage and any(usage.values()) and amounts.cost_nano != to_nano(got):
        return DIFFERENT, f"{text}: priced {amounts.cost_nano} nano-USD instead of {to_nano(got)}"
    return (EQUAL if got == wanted else ROUNDED), text


def _usage(rng: random.Random, units: list[str]) -> dict[str, int]:
    """Random leaf amounts, summed up the lattice, so that every counter contains its parts."""
    size = rng.choice(SIZES)
    leaf = {unit: rng.choice([0, rng.randint(0, 9), rng.randint(0, size)]) for unit in units}
    inside = {unit: LATTICE[unit].dimensions for unit in units}
    return {unit: sum(leaf[part] for part in units if inside[unit] <= inside[part]) for unit in units}


def _call(at: datetime, usage: dict[str, int]) -> Call:
    tokens = [usage.get(unit, 0) for unit in COUNTERS]
    extra = {unit: float(count) for unit, count in usage.items() if unit not in COUNTERS}
    return Call(micros(at), "OK", (tokens[0], tokens[1], tokens[2], tokens[3], tokens[4], tokens[5]), extra)
