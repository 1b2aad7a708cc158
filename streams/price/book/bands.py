"""The bands that price a call: those of the book, then each rule in turn; later bands win where several hold.

A band is PARTIAL (`Band.partial`) as long as a tier of the call has no price of its own in it.
"""

from collections.abc import Iterable
from dataclasses import replace
from fractions import Fraction

from tollmeter.streams.price.book.compile import LATTICE, leaves_of
from tollmeter.streams.price.book.overrides import Factor, Fee, Free, Rates, Rule
from tollmeter.streams.rules.pricing import rates
from tollmeter.streams.rules.pricing.rates import Band, clip

Missing = frozenset[str]
"""Tiers of the call that a band has no price for."""


def apply_rules(listed: Iterable[tuple[Band, Missing]], rules: Iterable[Rule], tiers: Missing) -> tuple[Band, ...]:
    """Return the bands of a call of these tiers, given those of the book with the tiers that each of them lacks."""
    bands = list(listed)
    rules = tuple(rules)
    by_rules = rule_tiers(rules) & tiers
    in_book = {tier for band, missing in bands for tier in tiers - missing}
    for rule in rules:
        if isinstance(rule, Factor):
            bands = [pair for band, missing in bands for pair in _scaled(band, missing, rule, tiers)]
        elif isinstance(rule, Fee):
            bands = [pair for band, missing in bands for pair in _with_fee(band, missing, rule)]
        elif isinstance(rule, Free):
            bands.append((free_band(rule), frozenset()))
        elif isinstance(rule, Rates):
            parts = set(rule.context.split("+")) - {""}
            if rule.context == "*" or (parts == by_rules if parts else not by_rules | in_book):
                missing = frozenset() if rule.context == "*" else tiers - parts
                bands.append((rule.band(), missing))
    return tuple(replace(band, partial=True) if missing and not band.partial else band for band, missing in bands)


def _scaled(band: Band, missing: Missing, rule: Factor, tiers: Missing) -> list[tuple[Band, Missing]]:
    """Return the band, and behind it the band at the factor where the rule is for it."""
    lacks = tiers == {rule.tier} and (bool(missing) or band.partial)
    new = scale(band, rule) if (not rule.tier or lacks) and not surcharged(band, rule) else None
    if new is None:
        return [(band, missing)]
    kept = [] if rule.always else [(band, missing)]
    return [*kept, (new, missing - {rule.tier})]


def _with_fee(band: Band, missing: Missing, rule: Fee) -> list[tuple[Band, Missing]]:
    new = add_fee(band, rule)
    if new is None or new is band:
        return [(band, missing)]
    return [(new, missing)] if rule.always else [(band, missing), (new, missing)]


def add_fee(band: Band, rule: Fee) -> Band | None:
    """Return a band with the fees that it has no price for; None outside the time of the rule."""
    clipped = clip(band, rule.valid_from, rule.valid_to)
    fees = {unit: pico for unit, pico in rule.pico.items() if unit not in band.prices}
    if clipped is None or band.layer == rates.FREE or not fees:
        return None if clipped is None else band
    prices = dict(sorted({**band.prices, **fees}.items()))
    return replace(
        clipped,
        prices=prices,
        leaves=leaves_of(frozenset(prices)),
        source=f"{band.source}; + {rule.source}",
        name=band.name if rule.always else "+".join(filter(None, (band.name, rule.name))),
    )


def tiers_named(rules: Iterable[Rule]) -> Missing:
    """Return the tiers that these rules know."""
    rules = tuple(rules)
    return rule_tiers(rules) | {rule.tier for rule in rules if isinstance(rule, Factor)}


def rule_tiers(rules: Iterable[Rule]) -> Missing:
    """Return the tiers for which these rules have rates of their own."""
    listed = (rule.context.split("+") for rule in rules if isinstance(rule, Rates))
    return frozenset(tier for tiers_of_rule in listed for tier in tiers_of_rule) - {"", "*"}


def scale(band: Band, rule: Factor) -> Band | None:
    """Return a band at the rule's factor, in the time of the rule; what is free stays free."""
    clipped = clip(band, rule.valid_from, rule.valid_to)
    if clipped is None or band.layer == rates.FREE:
        return clipped
    scaled = {
        unit: Fraction(price) * (Fraction(rule.factor) if rule.only == "all" or _is_token(unit) else 1)
        for unit, price in band.prices.items()
    }
    return replace(
        clipped,
        context=rule.tier or band.context,
        prices={unit: round(price) for unit, price in scaled.items()},
        exact=band.exact and all(price.denominator == 1 for price in scaled.values()),
        source=f"{band.source}; x {rule.factor}: {rule.source}",
        partial=not rule.certain if rule.tier else band.partial,
        layer=band.layer if rule.listed else rates.OVERRIDE,
        name=f"{band.name}+{rule.name}" if band.name else rule.name,
    )


def surcharged(band: Band, rule: Factor) -> bool:
    """Say whether a band holds this surcharge already: a list price states one by host and by region, and bills one."""
    return rule.listed and rule.source in band.source


def _is_token(unit: str) -> bool:
    return ("family", "tokens") in LATTICE[unit].dimensions


def free_band(rule: Free) -> Band:
    """Return a free rule as a band."""
    return Band(
        provider=rule.provider,
        model=rule.model,
        context="*",
        prices={},
        leaves=(),
        source=rule.source,
        valid_from=rule.valid_from,
        valid_to=rule.valid_to,
        layer=rates.FREE,
        name=rule.name,
    )
