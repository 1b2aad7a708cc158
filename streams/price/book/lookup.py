"""Answers "what does this model cost?" for people: the rules in force on a day, tier by tier, or the nearest names."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from difflib import get_close_matches

from tollmeter.schemas.event import micros
from tollmeter.streams.price.book.book import PriceBook
from tollmeter.streams.price.book.compile import PROVIDERS
from tollmeter.streams.price.book.overrides import Rates
from tollmeter.streams.price.book.plans import IMAGE_OPERATIONS
from tollmeter.streams.price.book.providers import provider_of
from tollmeter.streams.rules.pricing.model_names import Names
from tollmeter.streams.rules.pricing.price_one import DAY_US, Plan, band_at
from tollmeter.streams.rules.pricing.rates import Band

NEAREST = 5


@dataclass(frozen=True, slots=True)
class Listed:
    """One rule that prices calls to the model, under a tier, and whether it does so at the very instant asked for."""

    provider: str
    tier: str
    band: Band
    in_force: bool
    partial: bool


def lookup(book: PriceBook, model: str, provider: str, at: datetime) -> list[Listed]:
    """Return the rules in force for a model on the day of `at`; without a provider, its maker's or all sellers'."""
    found: list[Listed] = []
    for name in (provider,) if provider else _sellers(book, model):
        standard = _plan(book, name, model, "")
        known = {band.rule_id for band in standard.bands}
        found += _listed(name, "standard", standard, at)
        for tier in _tiers(book, name, model):
            plan = _plan(book, name, model, tier)
            if not plan.partial and any(band.rule_id not in known for band in plan.bands):
                found += _listed(name, tier, plan, at)
    return found


def nearest(model: str) -> list[str]:
    """Return the names most like this one, as provider/model, under their maker where that is known."""
    sellers: dict[str, str] = {}
    for provider in PROVIDERS:
        for entry in provider.models:
            makes = provider.model_match is not None and provider.model_match.is_match(entry.id)
            if makes or entry.id not in sellers:
                sellers[entry.id] = provider.id
    close = get_close_matches(model.lower(), list(sellers), n=NEAREST, cutoff=0.5)
    return [f"{sellers[name]}/{name}" for name in close]


def _sellers(book: PriceBook, model: str) -> Iterable[str]:
    maker = provider_of(Names("", "", model, "", "", "", "chat", "", ""))
    if maker and _plan(book, maker, model, "").bands:
        return (maker,)
    rules = {
        rule.provider for rule in book.overrides.in_force if rule.model != "*" and not set(rule.provider) & set("*?")
    }
    names = dict.fromkeys((*(provider.id for provider in PROVIDERS), *sorted(rules)))
    return [name for name in names if _plan(book, name, model, "").bands]


def _plan(book: PriceBook, provider: str, model: str, tier: str) -> Plan:
    processing, service_tier = ("BATCH", "") if tier == "batch" else ("REALTIME", tier)
    operation = next(iter(IMAGE_OPERATIONS)) if "image" in model else "chat"
    return book.planner.plan(Names(provider, "", model, "", "", "", operation, service_tier, processing))


def _tiers(book: PriceBook, provider: str, model: str) -> list[str]:
    own = {rule.context for rule in book.overrides.in_force if isinstance(rule, Rates)} - {"", "*"}
    return sorted(book.planner.tiers_of(provider, model) | {tier for tier in own if "+" not in tier})


def _listed(provider: str, tier: str, plan: Plan, at: datetime) -> list[Listed]:
    """Return the bands that win for some call on that day: each edge of hours and sizes is tried."""
    now = micros(at)
    midnight = now - now % DAY_US
    moments = {now, *(midnight + band.from_second * 1_000_000 for band in plan.bands)}
    sizes = {0, 1, *(band.above_input + 1 for band in plan.bands)}
    winners = {
        id(band): (moment == now)
        for moment in sorted(moments, key=lambda moment: moment == now)
        for size in sizes
        if (band := band_at(plan.bands, moment, (size, 0, 0, 0, 0, 0))) is not None
    }
    return [Listed(provider, tier, band, winners[id(band)], plan.partial) for band in plan.bands if id(band) in winners]
