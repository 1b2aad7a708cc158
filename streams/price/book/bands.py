"""The bands that price a call: those of the book, then each rule in turn; later bands win where several hold.

A band is PARTIAL (`Band.partial`) as long as a tier of the call has no price of its own in it.
"""

from collections.abc import Iterable
from dataclasses import replace
from fractions import Fraction
from typing import NamedTuple

from tollmeter.streams.price.book.compile import LATTICE, leaves_of
from tollmeter.streams.price.book.overrides import Factor, Fee, Free, Rates, Rule
from tollmeter.streams.rules.pricing import rates
from tollmeter.streams.rules.pricing.model_names import at_most_pct
from tollmeter.streams.rules.pricing.rates import Band, clip

Missing = frozenset[str]
"""Tiers of the call that a band has no price for."""


class _Held(NamedTuple):
    """A band among those of a call, with the tiers that it lacks."""

    band: Band
    missing: Missing
    plain: Band | None = None
    """The same without the factor of a tier: a later factor for this tier takes the place of that one."""


def apply_rules(listed: Iterable[tuple[Band, Missing]], rules: Iterable[Rule], tiers: Missing) -> tuple[Band, ...]:
    """Return the bands of a call of these tiers, given those of the book with the tiers that each of them lacks."""
    rules, listed = tuple(rules), tuple(listed)
    by_rules = rule_tiers(rules) & tiers
    in_book = {tier for _, missing in listed for tier in tiers - missing}
    held = [_in_book(band, missing, tiers) for band, missing in listed]
    for rule in rules:
        if isinstance(rule, Factor):
            held = [new for one in held for new in _scaled(one, rule, tiers)]
        elif isinstance(rule, Fee):
            held = [new for one in held for new in _with_fee(one, rule)]
        elif isinstance(rule, Free):
            held.append(_Held(free_band(rule), frozenset()))
        elif isinstance(rule, Rates):
            parts = set(rule.context.split("+")) - {""}
            if rule.context == "*" or (parts == by_rules if parts else not by_rules | in_book):
                missing = frozenset() if rule.context == "*" else tiers - parts
                held.append(_Held(rule.band(), missing))
    return tuple(_lacking(band, missing) if missing else band for band, missing, _ in held)


def _lacking(band: Band, missing: Missing) -> Band:
    """Return a stand-in for tiers without a price, with the most that they may cost."""
    return replace(band, partial=True, at_most_pct=at_most_pct(missing, band.at_most_pct))


def _in_book(band: Band, missing: Missing, tiers: Missing) -> _Held:
    """Return a band of the book; from before its tier had a price there it lacks that, though it bears its name."""
    return _Held(replace(band, partial=False), tiers) if band.partial and tiers else _Held(band, missing)


def _scaled(one: _Held, rule: Factor, tiers: Missing) -> list[_Held]:
    """Return the band, and behind it the band at the factor where the rule is for it."""
    if rule.tier:
        lacks = tiers == {rule.tier} and (bool(one.missing) or one.plain is not None)
        plain = one.plain or one.band
        band = scale(plain, rule) if lacks else None
        new = None if band is None else _Held(band, frozenset(), plain)
    else:
        band = None if surcharged(one.band, rule) else scale(one.band, rule)
        new = None if band is None else _Held(band, one.missing, one.plain and scale(one.plain, rule))
    if new is None:
        return [one]
    return [new] if rule.always else [one, new]


def _with_fee(one: _Held, rule: Fee) -> list[_Held]:
    band = add_fee(one.band, rule)
    if band is None or band is one.band:
        return [one]
    new = _Held(band, one.missing, one.plain and add_fee(one.plain, rule))
    return [new] if rule.always else [one, new]


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
        unit: Fraction(price) * (Fraction(rule.factor) if _is_scaled(unit, rule) else 1)
        for unit, price in band.prices.items()
    }
    return replace(
        clipped,
        context=rule.tier or band.context,
        prices={unit: round(price) for unit, price in scaled.items()},
        exact=band.exact and all(price.denominator == 1 for price in scaled.values()),
        source=f"{band.source}; x {rule.factor}: {rule.source}",
        partial=band.partial or not rule.certain,
        at_most_pct=band.at_most_pct * rule.at_most_pct // 100,
        layer=band.layer if rule.listed else rates.OVERRIDE,
        name=f"{band.name}+{rule.name}" if band.name else rule.name,
    )


def surcharged(band: Band, rule: Factor) -> bool:
    """Say whether a band holds this surcharge already: a list price states one by host and by region, and bills one."""
    return rule.listed and rule.source in band.source


def _is_scaled(unit: str, rule: Factor) -> bool:
    kinds = LATTICE[unit].dimensions
    cached = ("token_type", "cache_read") in kinds
    return rule.only == "all" or (("family", "tokens") in kinds and not (cached and rule.only == "uncached"))


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
