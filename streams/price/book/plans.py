"""From the names in an event to the bands that price it: override, model used, model sent, deployment, date stripped.

A name that no rule and no source knows stays unknown; it never becomes another model. A second source fills what the
book lacks, and makes PARTIAL what it contradicts. Every answer is one of a finite set of `Plan` objects, so equal
answers are the same object.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import date
from functools import lru_cache, partial
from typing import NamedTuple

from genai_prices.types import ModelInfo

from tollmeter.schemas.names import model_id, plain_model, without_date
from tollmeter.streams.price.book.bands import apply_rules, tiers_named
from tollmeter.streams.price.book.compile import PROVIDERS, compile_book, contexts
from tollmeter.streams.price.book.coverage import (
    Coverage,
    Verdict,
    bands_of,
    differs,
    disputed,
    lacks_cache,
    short_forms,
)
from tollmeter.streams.price.book.overrides import Alias, Factor, Fee, Free, Overrides, Rates, Rule
from tollmeter.streams.price.book.providers import MODELS, maker_of, provider_of
from tollmeter.streams.price.book.public_map import Listed
from tollmeter.streams.price.book.relatives import Default, Key, Relatives
from tollmeter.streams.rules.pricing.model_names import TIER_AT_MOST_PCT, Names, spellings, tiers
from tollmeter.streams.rules.pricing.price_one import Plan
from tollmeter.streams.rules.pricing.rates import Band, clip

MINIMUM_SECONDS = {("groq", "whisper-large-v3"): 10, ("groq", "whisper-large-v3-turbo"): 10}
"""The one rule of the book that is not linear: Groq bills at least ten seconds of audio per request."""

IMAGE_OPERATIONS = frozenset(("image", "images", "image_generation"))
PLACE = ("deployment", "api_host", "region", "operation")


class Target(NamedTuple):
    """A model of the book that a name stands for, from a day to before a day."""

    key: Key
    valid_from: date | None = None
    valid_to: date | None = None


class Meaning(NamedTuple):
    """What one of an event's names stands for: models of the book, the rules in front, the lines of a second source."""

    provider: str
    name: str
    targets: tuple[Target, ...] = ()
    rules: tuple[Rule, ...] = ()
    listed: tuple[Listed, ...] = ()
    stripped: bool = False
    """Borrowed: from the name without its date, or from what was asked for where an unknown model answered."""

    @property
    def known(self) -> bool:
        return bool(self.targets or self.listed) or any(isinstance(rule, Rates | Free) for rule in self.rules)


def _answered_by_another(used: str, found: Meaning) -> bool:
    """Tell whether an answer names a model that nobody knows, and no other version of the one that was asked for.

    A router or a chain of fallbacks may have chosen it, at another price. What a rule of ours says of the names holds.
    """
    if not used.strip() or found.name == used or any(isinstance(rule, Rates | Free) for rule in found.rules):
        return False
    return plain_model(used.lower()) != plain_model(found.name.lower()).removesuffix("-latest")


class Planner:
    """Resolves names against the compiled book, the override rules and the second source."""

    def __init__(self, overrides: Overrides, coverage: Coverage, at_risk: Default) -> None:
        self.overrides, self.coverage = overrides, coverage
        self.bands = compile_book()
        self._by_context: dict[Key, dict[str, list[Band]]] = defaultdict(lambda: defaultdict(list))
        for band in self.bands:
            self._by_context[band.provider, band.model][band.context].append(band)
        self._tiers: dict[Key, frozenset[str]] = {}
        self._plans: dict[object, Plan] = {}
        self._rules = overrides.in_force
        self._owners = {id(model): provider.id for provider in PROVIDERS for model in provider.models}
        self.relatives = Relatives(MODELS, self._by_context, maker_of, at_risk)
        self.find = lru_cache(maxsize=50_000)(self._find)  # remembers misses too: they are the slow ones

    def plan(self, names: Names) -> Plan:
        """Return the plan for calls with these names."""
        return self._make(self.meaning(names), names)

    # ------------------------------------------------------------------ names

    def identity(self, names: Names) -> tuple[str, str]:
        """Return provider and model by which limits and reports know calls with these names, whatever they cost.

        Rules of ours play no part: an alias has a time, an identity has none.
        """
        provider = provider_of(names)
        own = (names.model_used, names.model_sent, names.deployment)
        return provider, model_id(own, partial(self._is_sold, provider), self._by_maker)

    def _is_sold(self, provider: str, name: str) -> bool:
        """Say whether the book knows a model as its provider sells it, or as its maker does."""
        for seller in dict.fromkeys((provider, maker_of(name))):
            plain = spellings(name, seller) or [""]
            forms = [form for spelling in plain for form in short_forms(spelling, seller)]
            if any(form and self.find(seller, form) is not None for form in (*forms, without_date(forms[-1]))):
                return True
        return False

    def _by_maker(self, name: str) -> str | None:
        """Return what the maker of a model calls it."""
        key = self.find(maker_of(name), name)
        return None if key is None else key[1]

    def meaning(self, names: Names) -> Meaning:
        """Return what the first of the names that anything is known of stands for."""
        provider = provider_of(names)
        own = [name for name in dict.fromkeys((names.model_used, names.model_sent, names.deployment)) if name.strip()]
        where = {key: getattr(names, key).lower() for key in PLACE}
        exact = (self._exact(provider, name, where) for name in own)
        found = next((meaning for meaning in exact if meaning.known), None)
        if found is not None:
            return found._replace(stripped=_answered_by_another(names.model_used, found))
        for name in own:
            shorter = without_date(spellings(name, provider)[-1])
            if shorter and (key := self.find(provider, shorter)):
                rules = tuple(rule for rule in self._rules if rule.matches(provider, (shorter, key[1]), where))
                return Meaning(provider, name, (Target(key),), rules, stripped=True)
        return Meaning(provider, own[0] if own else "")

    def _exact(self, provider: str, name: str, where: dict[str, str]) -> Meaning:
        forms = list(
            dict.fromkeys(form for plain in spellings(name, provider) for form in short_forms(plain, provider))
        )
        targets = self._targets(provider, forms, where)
        known = {*forms, *(target.key[1] for target in targets)}
        rules = tuple(rule for rule in self._rules if rule.matches(provider, known, where))
        listed = self.coverage.lines(provider, forms, where["region"], host=where["api_host"], in_book=bool(targets))
        return Meaning(provider, name, targets, rules, tuple(listed))

    def _targets(self, provider: str, forms: Sequence[str], where: dict[str, str]) -> tuple[Target, ...]:
        """Return the models that a name stands for, in order of time; aliases stand before the book's own reading."""
        found = next((key for form in forms if (key := self.find(provider, form))), None)
        targets = [Target(found)] if found else []
        targets += [
            Target(key, alias.valid_from, alias.valid_to)
            for alias in self.overrides.aliases
            if alias.matches(provider, forms, where) and (key := self._aliased(provider, forms, alias))
        ]
        return tuple(targets)

    def _aliased(self, provider: str, forms: Sequence[str], alias: Alias) -> Key | None:
        name = forms[-1].rpartition("/")[2] if alias.to == "*" else alias.to
        return self.find(alias.to_provider or provider, name)

    def _find(self, provider: str, name: str) -> Key | None:
        book = MODELS.get(provider)
        for form in spellings(name, provider) if book else ():
            model = book.find_model(form, all_providers=list(PROVIDERS)) if book else None
            if model is not None:
                key = self._owners[id(model)], model.id
                if key not in self._tiers:
                    self._tiers[key] = _tiers_of(model)
                return key
        return None

    def tiers_of(self, provider: str, model: str) -> frozenset[str]:
        """Return the tiers for which the book may have prices of their own."""
        key = self.find(provider, model)
        return self._tiers[key] if key else frozenset()

    # ------------------------------------------------------------------ two sources

    def verdict(self, meaning: Meaning) -> Verdict:
        """Say which source prices a name, and why: the book, a rule of ours, or the map where it is more exact."""
        standard = next((line for line in meaning.listed if not line.context and line.above_input < 0), None)
        forms = short_forms(meaning.name, meaning.provider)
        # the map's lines hold for every place, but for those that name a region
        regional = standard is not None and _names_a_region(standard, meaning.provider, forms)
        places = [key for key in PLACE if not (regional and key == "region")]
        public = tuple(r for r in meaning.rules if not self.overrides.is_own(r) and not r.asks_for(places))
        ours = self.standard_bands(meaning._replace(rules=public))
        if any(self.overrides.is_own(rule) and isinstance(rule, Rates | Free) for rule in meaning.rules):
            return Verdict("book", "a price of your own file")
        if not ours or standard is None:
            return Verdict("book alone" if ours else "map alone" if meaning.listed else "nobody")
        units = differs(ours, standard)
        if not units:
            return Verdict("agree")
        if any(isinstance(rule, Rates | Free) for rule in public):
            return Verdict("book", "; ".join(dict.fromkeys(band.source for band in ours)))
        if lacks_cache(ours, units):
            return Verdict("book", "the book states no price for cached input: calls that use it are PARTIAL")
        row = self.coverage.settled(meaning.provider, forms)
        if row is not None:
            kinds = {"book": "book", "map": "map", "neither": "disputed"}
            return Verdict(kinds[row.trust], f"{row.why} ({row.source})")  # type: ignore[arg-type]
        return self._more_exact(meaning, standard, forms)

    def standard_bands(self, meaning: Meaning) -> tuple[Band, ...]:
        """Return what the book and our rules say of a name, the second source left aside."""
        return self._bands_for(meaning.targets, meaning.rules, ())

    def _more_exact(self, meaning: Meaning, standard: Listed, forms: Sequence[str]) -> Verdict:
        """Tell where the map speaks of exactly this name and the book of something like it."""
        owners = {target.key[0] for target in meaning.targets}
        if _names_a_region(standard, meaning.provider, forms):
            return Verdict("map", "the map has a price of its own for this region, the book one for all")
        if owners and meaning.provider not in owners:
            return Verdict("map", f"the seller's own price; the book has only that of {', '.join(sorted(owners))}")
        models = {target.key[1].lower() for target in meaning.targets}
        if not any(form == model or without_date(form) == model for form in forms for model in models):
            taken = ", ".join(sorted(models))
            return Verdict("map", f"the map has exactly this name; the book takes it for {taken}")
        return Verdict("disputed", "")

    # ------------------------------------------------------------------ plans

    def _make(self, meaning: Meaning, names: Names) -> Plan:
        in_book = (self._tiers[target.key] for target in meaning.targets)
        known = tiers_named(meaning.rules).union(*in_book, *(line.context.split("+") for line in meaning.listed))
        # any text may come in as a tier: what nobody has a price for is one and the same
        known |= TIER_AT_MOST_PCT.keys()
        wanted = tuple(tier if tier in known else "?" for tier in tiers(names.service_tier, names.processing))
        image = names.operation.lower() in IMAGE_OPERATIONS
        family = self.relatives.family(meaning.provider, meaning.name)
        rules, listed = (tuple(part.name for part in parts) for parts in (meaning.rules, meaning.listed))
        said_of = (meaning.provider, meaning.name) if listed else ()  # what two sources say is said of a name
        key = meaning.targets, rules, listed, said_of, meaning.stripped, wanted, image, family
        plan = self._plans.get(key)
        if plan is None:
            minimum = max((MINIMUM_SECONDS.get(target.key, 0) for target in meaning.targets), default=0)
            worst = self.relatives.dearest(family)
            bands = self._priced_by(meaning, wanted)
            plan = Plan(bands, worst.bands, meaning.stripped, image, minimum, worst.rule, worst.lacking)
            self._plans[key] = plan
        return plan

    def _priced_by(self, meaning: Meaning, wanted: tuple[str, ...]) -> tuple[Band, ...]:
        """Return the bands of a name under these tiers, from the source that is right about it."""
        kind = self.verdict(meaning).kind
        if kind in ("map", "map alone"):
            return self._on_the_map(meaning, wanted, alone=kind == "map alone")
        bands = self._bands_for(meaning.targets, meaning.rules, wanted)
        if kind != "disputed":
            return bands
        other = next(line for line in meaning.listed if not line.context and line.above_input < 0)
        return tuple(disputed(band, other) for band in bands)

    def _on_the_map(self, meaning: Meaning, wanted: tuple[str, ...], *, alone: bool) -> tuple[Band, ...]:
        """Return the bands of the map's lines, PARTIAL as they are, with fees and with what rules of the user change.

        What ships for tiers and places is meant for the book's prices; a place counts where the map stands alone.
        """
        rules = tuple(
            rule
            for rule in meaning.rules
            if isinstance(rule, Fee)
            or (isinstance(rule, Factor) and (self.overrides.is_own(rule) or (alone and not rule.tier)))
        )
        tiers = frozenset(wanted)
        lines = bands_of(meaning.listed, meaning.provider, wanted)
        listed = ((replace(line, partial=False), frozenset() if line.context else tiers) for line in lines)
        return tuple(replace(band, partial=True) for band in apply_rules(listed, rules, tiers))

    def _bands_for(
        self, targets: tuple[Target, ...], rules: tuple[Rule, ...], wanted: tuple[str, ...]
    ) -> tuple[Band, ...]:
        return apply_rules(self._in_book(targets, wanted), rules, frozenset(wanted))

    def _in_book(self, targets: tuple[Target, ...], wanted: tuple[str, ...]) -> Iterator[tuple[Band, frozenset[str]]]:
        """Yield the book's bands of the models, each with the tiers that it has no price for."""
        for target in targets:
            own = [tier for tier in wanted if tier in self._tiers[target.key]]
            missing = frozenset(wanted).difference(own)
            for band in self._by_context[target.key].get("+".join(own), ()):
                clipped = clip(band, target.valid_from, target.valid_to)
                if clipped is not None:
                    yield clipped, missing


def _tiers_of(model: ModelInfo) -> frozenset[str]:
    return frozenset(value for context in contexts(model) for _, value in context)


def _names_a_region(line: Listed, provider: str, forms: Sequence[str]) -> bool:
    """Say whether the map's name has more in front than the name asked for."""
    listed = short_forms(line.name, provider)[-1]
    return "/" in listed and listed not in forms
