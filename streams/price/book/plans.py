"""From the names in an event to the bands that price it: override, model used, model sent, deployment, date stripped.

A name that no rule and no price list knows stays unknown; it never becomes another model. Every answer is one of a
finite set of `Plan` objects, so equal answers are the same object.
"""

import re
from collections import defaultdict
from collections.abc import Iterator
from datetime import date
from functools import lru_cache
from typing import NamedTuple

from genai_prices.data_snapshot import find_provider_by_id
from genai_prices.types import ModelInfo, Provider

from tollmeter.streams.price.book.bands import apply_rules, tiers_named
from tollmeter.streams.price.book.compile import PROVIDERS, compile_book, contexts
from tollmeter.streams.price.book.overrides import Factor, Overrides, Rule
from tollmeter.streams.rules.pricing.model_names import Names, spellings, tiers, without_date, words
from tollmeter.streams.rules.pricing.price_one import Plan
from tollmeter.streams.rules.pricing.rates import Band, clip, effective, outprices

Key = tuple[str, str]
"""Provider and model id in the book."""

MINIMUM_SECONDS = {("groq", "whisper-large-v3"): 10, ("groq", "whisper-large-v3-turbo"): 10}
"""The one rule of the book that is not linear: Groq bills at least ten seconds of audio per request."""

PROVIDER_NAMES = {
    "gcp.vertex_ai": "google",
    "gcp.gemini": "google",
    "gcp.gen_ai": "google",
    "aws.bedrock": "aws",
    "azure.ai.openai": "azure",
    "azure.ai.inference": "azure",
    "azure_openai": "azure",
    "mistral_ai": "mistral",
    "x_ai": "x-ai",
    "moonshot": "moonshotai",
}


IMAGE_OPERATIONS = frozenset(("image", "images", "image_generation"))

Family = tuple[str, tuple[str, ...]]
"""Provider and the first words of a model name."""


class Target(NamedTuple):
    """A model of the book that a name stands for, from a day to before a day."""

    key: Key
    valid_from: date | None = None
    valid_to: date | None = None


class Planner:
    """Resolves names against the compiled book and the override rules."""

    def __init__(self, overrides: Overrides) -> None:
        self.overrides = overrides
        self.bands = compile_book()
        self._by_context: dict[Key, dict[str, list[Band]]] = defaultdict(lambda: defaultdict(list))
        for band in self.bands:
            self._by_context[band.provider, band.model][band.context].append(band)
        self._tiers: dict[Key, frozenset[str]] = {}
        self._plans: dict[object, Plan] = {}
        self._rules = overrides.in_force
        self._models = {provider.id: provider for provider in PROVIDERS}
        self._owners = {id(model): provider.id for provider in PROVIDERS for model in provider.models}
        self.find = lru_cache(maxsize=50_000)(self._find)  # remembers misses too: they are the slow ones
        self.dearest = lru_cache(maxsize=5_000)(self._dearest)
        self.family_of = lru_cache(maxsize=50_000)(self._family_of)
        self._prefixes = lru_cache(maxsize=None)(self._prefixes_of)

    # ------------------------------------------------------------------ names

    def plan(self, names: Names) -> Plan:
        """Return the plan for calls with these names."""
        provider = self.provider_of(names)
        own = [name for name in dict.fromkeys((names.model_used, names.model_sent, names.deployment)) if name.strip()]
        where = {key: getattr(names, key).lower() for key in ("deployment", "api_host", "region", "operation")}
        for name in own:
            targets = self._targets(provider, name, where)
            known = {*spellings(name, provider), *(target.key[1] for target in targets)}
            rules = tuple(rule for rule in self._rules if rule.matches(provider, known, where))
            if targets or any(not isinstance(rule, Factor) for rule in rules):
                return self._make(targets, rules, names, provider, name, False)
        for name in own:
            shorter = without_date(spellings(name, provider)[-1])
            if shorter and (key := self.find(provider, shorter)):
                rules = tuple(rule for rule in self._rules if rule.matches(provider, (shorter, key[1]), where))
                return self._make((Target(key),), rules, names, provider, name, True)
        return self._make((), (), names, provider, own[0] if own else "", False)

    def provider_of(self, names: Names) -> str:
        """Return the provider's id in the book: the host called settles it, then the name given, then the model."""
        stated = names.provider.strip().lower()
        stated = PROVIDER_NAMES.get(stated, stated)
        if stated in ("", "litellm"):
            prefix = (names.model_sent or names.model_used).lower().partition("/")[0]
            stated = prefix if prefix in self._models else ""
        host = names.api_host.strip().lower()
        given = find_provider_by_id(list(PROVIDERS), stated) if stated else None
        if host and not (given and _serves(given, host)):
            called = next((provider for provider in PROVIDERS if _serves(provider, host)), None)
            if called is not None:
                return called.id
        if given is not None:
            return given.id
        return stated or self._maker(names.model_used or names.model_sent)

    def tiers_of(self, provider: str, model: str) -> frozenset[str]:
        """Return the tiers for which the book may have prices of their own."""
        key = self.find(provider, model)
        return self._tiers[key] if key else frozenset()

    def _maker(self, model: str) -> str:
        name = (spellings(model, "") or [""])[-1]
        makers = (p.id for p in PROVIDERS if p.model_match is not None and p.model_match.is_match(name))
        return next(makers, "")

    def _targets(self, provider: str, name: str, where: dict[str, str]) -> tuple[Target, ...]:
        """Return the models that a name stands for, in order of time; aliases stand before the book's own reading."""
        found = self.find(provider, name)
        targets = [Target(found)] if found else []
        forms = spellings(name, provider)
        targets += [
            Target(key, alias.valid_from, alias.valid_to)
            for alias in self.overrides.aliases
            if alias.matches(provider, forms, where) and (key := self.find(alias.to_provider or provider, alias.to))
        ]
        return tuple(targets)

    def _find(self, provider: str, name: str) -> Key | None:
        book = self._models.get(provider)
        for form in spellings(name, provider) if book else ():
            model = book.find_model(form, all_providers=list(PROVIDERS)) if book else None
            if model is not None:
                key = self._owners[id(model)], model.id
                if key not in self._tiers:
                    self._tiers[key] = _tiers_of(model)
                return key
        return None

    # ------------------------------------------------------------------ plans

    def _make(
        self,
        targets: tuple[Target, ...],
        rules: tuple[Rule, ...],
        names: Names,
        provider: str,
        name: str,
        stripped: bool,
    ) -> Plan:
        listed = tiers_named(rules).union(*(self._tiers[target.key] for target in targets))
        # any text may come in as a tier: what nobody has a price for is one and the same
        wanted = tuple(tier if tier in listed else "?" for tier in tiers(names.service_tier, names.processing))
        image = names.operation.lower() in IMAGE_OPERATIONS
        family = self.family_of(provider, name)
        key = targets, tuple(rule.name for rule in rules), wanted, stripped, image, family
        plan = self._plans.get(key)
        if plan is None:
            minimum = max((MINIMUM_SECONDS.get(target.key, 0) for target in targets), default=0)
            bands = apply_rules(self._listed(targets, wanted), rules, frozenset(wanted))
            plan = Plan(bands, self.dearest(family), stripped, image, minimum)
            self._plans[key] = plan
        return plan

    def _listed(self, targets: tuple[Target, ...], wanted: tuple[str, ...]) -> Iterator[tuple[Band, frozenset[str]]]:
        """Yield the book's bands of the models, each with the tiers that it has no price for."""
        for target in targets:
            own = [tier for tier in wanted if tier in self._tiers[target.key]]
            missing = frozenset(wanted).difference(own)
            for band in self._by_context[target.key].get("+".join(own), ()):
                if clipped := clip(band, target.valid_from, target.valid_to):
                    yield clipped, missing

    # ------------------------------------------------------------------ amounts at risk

    def _family_of(self, provider: str, name: str) -> Family:
        """Return the smallest family of the name: the models of the provider that begin with the same words."""
        own, known = words((spellings(name, provider) or [""])[-1]), provider in self._models
        pool = provider if known else self._maker(name)
        prefixes = self._prefixes(pool)
        for length in range(len(own), 0, -1):
            if own[:length] in prefixes:
                return pool, own[:length]
        return (pool, ()) if known else ("", ())

    def _prefixes_of(self, pool: str) -> frozenset[tuple[str, ...]]:
        members = self._members(pool)
        return frozenset(own[:length] for own, _ in members for length in range(1, len(own) + 1))

    def _dearest(self, family: Family) -> tuple[Band, ...]:
        """Return the bands in force today of the family, without those that another outprices for every count."""
        pool, prefix = family
        bands = [
            band
            for own, band in self._members(pool)
            if (own[: len(prefix)] == prefix if prefix else band.provider == pool)  # borrowed models are no relatives
        ]
        front: list[Band] = []
        for band in sorted(bands, key=lambda band: -sum(effective(band))):
            if not any(outprices(other, band) for other in front):
                front.append(band)
        return tuple(front)

    def _members(self, pool: str) -> list[tuple[tuple[str, ...], Band]]:
        book = self._models.get(pool)
        owners = [pool, *(book.fallback_model_providers or ())] if book else []
        return [
            (words(key[1]), band)
            for key, by_context in self._by_context.items()
            if key[0] in owners
            for band in by_context.get("", ())
            if band.valid_to is None
        ]


def _tiers_of(model: ModelInfo) -> frozenset[str]:
    return frozenset(value for context in contexts(model) for _, value in context)


def _serves(provider: Provider, host: str) -> bool:
    return (
        re.match(provider.api_pattern, f"https://{host.removeprefix('https://').removeprefix('http://')}") is not None
    )
