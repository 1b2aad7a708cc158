"""The price book as data: one JSON document for `usage.prices`, from which the tables price_rules and fx_rates come.

A rule carries marginal rates in pico-USD per reported unit, so that anyone can re-price a call: multiply each counter
by its rate, add `requests`, divide by 1000 and round half to even.
"""

import json
from collections.abc import Iterator
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Any

from tollmeter.streams.price.book.bands import add_fee, free_band, scale, surcharged
from tollmeter.streams.price.book.book import PriceBook
from tollmeter.streams.price.book.compile import PROVIDERS
from tollmeter.streams.price.book.coverage import PROVIDER_OF, SELLERS, short_forms
from tollmeter.streams.price.book.overrides import Factor, Fee, Free, Rates, Rule
from tollmeter.streams.price.book.providers import PROVIDER_NAMES
from tollmeter.streams.price.book.public_map import Listed
from tollmeter.streams.rules.pricing.rates import BOOK, DAY_SECONDS, EVERY_DAY, FREE, Band, clip

Row = dict[str, Any]


def document(book: PriceBook) -> tuple[bytes, bytes]:
    """Return key and value of the book's record in `usage.prices`: compact JSON, well under 8 MB."""
    body = {
        "price_book": book.id,
        "rules": [rule_of(band) for band in rules(book)],
        "overrides": [part.model_dump(mode="json", exclude_defaults=True) for part in book.overrides.documents],
        "fx": [{**row, "day": str(row["day"])} for row in fx_rows(book)],
        "fx_staleness": book.staleness._asdict(),
        "names": names(),
        "listed": listed(book),
        "at_risk": rule_of(book.planner.relatives.default.band()),
        "lacking": book.planner.relatives.default.each_pico(),
    }
    return book.id.encode(), json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode()


def names() -> Row:
    """Return how providers and models may be written, so that a reader finds the rule of a call without the book."""
    return {
        "also_called": PROVIDER_NAMES,
        "providers": [
            {
                "id": provider.id,
                "host": provider.api_pattern,
                "makes": _clause(provider.model_match),
                "sells_of": list(provider.fallback_model_providers or ()),
                "models": {model.id: _clause(model.match) for model in provider.models},
            }
            for provider in PROVIDERS
        ],
    }


def listed(book: PriceBook) -> list[list[Any]]:
    """Return what the second source says of names: [provider, name, above_input, pico-USD per unit] each.

    A reader asks it for names that the book does not know; its prices are PARTIAL.
    """
    sold: dict[tuple[str, str], dict[str, list[Listed]]] = {}
    for line in book.planner.coverage.standard():
        provider = PROVIDER_OF.get(line.seller, line.seller)
        name = short_forms(line.name, provider)[-1]
        sold.setdefault((provider, name), {}).setdefault(line.seller, []).append(line)
    return [
        [provider, name, line.above_input, line.band(provider).rates]
        for (provider, name), by_seller in sold.items()
        for line in _of_the_first(by_seller, provider)
    ]


def _of_the_first(by_seller: dict[str, list[Listed]], provider: str) -> list[Listed]:
    """Return the lines of the seller whom pricing asks first."""
    order = (seller for seller in SELLERS.get(provider, ()) if seller in by_seller)
    return by_seller[next(order, next(iter(by_seller)))]


def _clause(clause: object) -> Row | None:
    """Return a match rule of the book as JSON: {"starts_with": "gpt-"}, {"or": [...]}."""
    if clause is None:
        return None
    ((kind, value),) = vars(clause).items()
    parts = [_clause(part) for part in value] if isinstance(value, list) else value
    return {kind.rstrip("_"): parts}


def fx_rows(book: PriceBook) -> list[Row]:
    """Return the exchange rates in use."""
    return [rate._asdict() for rate in book.fx]


def rule_of(band: Band) -> Row:
    """Return one rule as JSON values; conditions that do not restrict are left out."""
    rule: Row = {
        "rule_id": band.rule_id,
        "provider": band.provider,
        "model": band.model,
        "context": band.context,
        "rate_pico": band.rates,
        "priced": sorted(band.prices),
        "source": band.source,
    }
    if band.layer == FREE:
        rule["free"] = True
    if band.valid_from:
        rule["valid_from"] = str(band.valid_from)
    if band.valid_to:
        rule["valid_to"] = str(band.valid_to)
    if (band.from_second, band.to_second) != (0, DAY_SECONDS):
        rule |= {"from_second": band.from_second, "to_second": band.to_second}
    if band.weekdays != EVERY_DAY:
        rule["weekdays"] = band.weekdays
    if band.above_input >= 0:
        rule["above_input"] = band.above_input
    if band.without_tokens:
        rule["without_tokens"] = True
    if not band.exact:
        rule["rounded"] = True
    if band.partial:
        rule["partial"] = True
    if band.at_most_pct != 100:
        rule["at_most_pct"] = band.at_most_pct
    if band.name and band.layer == BOOK:
        rule["listed"] = True
    return rule


def rules(book: PriceBook) -> list[Band]:
    """Return every rule of the book once, also those that aliases and factors make of others."""
    found = {band.rule_id: band for band in (*book.planner.bands, *_override_bands(book))}
    for band in (band for plan in book.plans for band in plan.bands):
        # a call's stand-in for what its tier lacks bears the name of the rule that it stands in for
        found.setdefault(band.rule_id, replace(band, at_most_pct=100))
    return list(found.values())


def _override_bands(book: PriceBook) -> list[Band]:
    """Return what the rules make, in the order in which they are applied: a factor scales what stands before it."""
    made = list(_aliased(book))
    providers = {provider.id for provider in PROVIDERS}
    seller: dict[int, str] = {}
    """By the identity of a scaled band: the one provider that sells at that price."""
    tiered: set[int] = set()
    """Those that hold the factor of a tier; another one for it takes its place."""
    for rule in book.overrides.in_force:
        if isinstance(rule, Rates):
            made.append(rule.band())
        elif isinstance(rule, Free):
            made.append(free_band(rule))
        elif isinstance(rule, Fee):
            made += [new for band in _named(book, rule, made) if (new := add_fee(band, rule))]
        elif isinstance(rule, Factor):
            lacking = [
                band
                for band in _named(book, rule, made)
                if (not rule.tier or band.context == "" or (band.context == rule.tier and band.partial))
                and not (rule.tier and id(band) in tiered)
                and not surcharged(band, rule)
                and seller.get(id(band), rule.provider) == rule.provider
            ]
            scaled = [(band, new) for band in lacking if (new := scale(band, rule))]
            tiered |= {id(new) for band, new in scaled if rule.tier or id(band) in tiered}
            seller |= {id(new): rule.provider for _, new in scaled if rule.provider in providers}
            made += [new for _, new in scaled]
    return made


def _named(book: PriceBook, rule: Rule, made: list[Band]) -> list[Band]:
    """Return the bands that a rule about the provider's models is for."""
    sellers = [p for p in PROVIDERS if fnmatchcase(p.id, rule.provider)]
    owners = {owner for p in sellers for owner in (p.id, *(p.fallback_model_providers or ()))}
    sold = [band for band in (*book.planner.bands, *made) if band.provider in owners]
    named = [band for band in sold if fnmatchcase(band.model, rule.model)]
    # a pattern that fits no id of the book is meant for names as sent: then any model may be the one
    return named or ([] if "/" in rule.model else sold)


def _aliased(book: PriceBook) -> Iterator[Band]:
    for alias in book.overrides.aliases:
        key = book.planner.find(alias.to_provider or alias.provider, alias.to)
        for band in book.planner.bands:
            if (band.provider, band.model) == key and (part := clip(band, alias.valid_from, alias.valid_to)):
                yield part
