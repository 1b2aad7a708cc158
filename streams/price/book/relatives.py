"""What an unknown model puts at risk: the dearest of its family, else of its provider, else a stated default."""

from collections.abc import Callable, Mapping
from fractions import Fraction
from functools import lru_cache
from typing import NamedTuple

from genai_prices.types import Provider

from tollmeter.schemas.money import PICO_PER_USD
from tollmeter.streams.price.book.compile import LATTICE, UNTOLD_TOKENS, leaves_of
from tollmeter.streams.rules.pricing.model_names import spellings, words
from tollmeter.streams.rules.pricing.rates import INPUT, OUTPUT, REQUESTS, Band, effective, outprices

Family = tuple[str, tuple[str, ...]]
"""Provider and the first words of a model name; ("", ()) is nobody's."""
Key = tuple[str, str]
"""Provider and model id in the book."""
DEFAULT_RULE = "at-risk-default"
_OTHER_UNITS_USD = {
    "audio_seconds": "0.01",
    "connector_calls": "0.05",
    "container_sessions": "0.05",
    "document_search_calls": "0.05",
    "fallback_credits": "0.05",
    "generated_images": "0.25",
    "guardrail_units": "0.001",
    "images": "0.25",
    "input_annotated_document_pages": "0.01",
    "input_characters": "0.0001",
    "input_document_pages": "0.01",
    "input_images": "0.01",
    "input_pixels": "0.00000001",
    "maps_searches": "0.05",
    "premium_web_searches": "0.05",
    "preview_web_searches": "0.05",
    "rerank_searches": "0.01",
    "search_blocks": "0.05",
    "search_sources": "0.05",
    "social_searches": "0.05",
    "storage_searches": "0.05",
    "store_groundings": "0.05",
    "video_seconds": "1",
    "web_searches": "0.05",
}
"""What one of a unit that no relative prices is taken to cost; and any call besides."""
_PER_CALL_USD = "0.001"


class Default(NamedTuple):
    """What is at risk where no source knows the provider, or none of its models is billed by what was used."""

    usd_per_mtok: int

    def each_pico(self) -> dict[str, int]:
        """Return what one of each unit that is billed apart is taken to cost: any token as much as another."""
        usd = {unit: Fraction(self.usd_per_mtok, 1_000_000) for unit in LATTICE if unit.endswith("_tokens")}
        usd |= {unit: Fraction(price) for unit, price in _OTHER_UNITS_USD.items()}
        return {unit: int(price * PICO_PER_USD) for unit, price in usd.items()}

    def band(self, priced: frozenset[str] = frozenset()) -> Band:
        """Return the default as a band of the units that are not `priced` already; nothing is ever billed by it."""
        usd = {INPUT: Fraction(self.usd_per_mtok, 1_000_000), OUTPUT: Fraction(self.usd_per_mtok, 1_000_000)}
        usd |= dict.fromkeys(UNTOLD_TOKENS, Fraction(self.usd_per_mtok, 1_000_000))
        usd |= {unit: Fraction(price) for unit, price in _OTHER_UNITS_USD.items()}
        if not priced:
            usd[REQUESTS] = Fraction(_PER_CALL_USD)
        prices = {unit: int(price * PICO_PER_USD) for unit, price in usd.items() if unit not in priced}
        return Band(
            "", DEFAULT_RULE, "", prices, leaves_of(frozenset(prices)), "setting TOLLMETER_AT_RISK_USD_PER_MTOK"
        )


class Dearest(NamedTuple):
    """What a family would charge at most: its bands, the rule that says so, and what one of each unit costs on top."""

    bands: tuple[Band, ...]
    rule: str
    lacking: Mapping[str, int]


class Relatives:
    """Finds the dearest relatives of a name among the standard bands in force."""

    def __init__(
        self,
        book: Mapping[str, Provider],
        bands: Mapping[Key, Mapping[str, list[Band]]],
        maker: Callable[[str], str],
        default: Default,
    ) -> None:
        self._book, self._bands, self._maker, self.default = book, bands, maker, default
        self.family = lru_cache(maxsize=50_000)(self._family)
        self.dearest = lru_cache(maxsize=5_000)(self._dearest)
        self._prefixes = lru_cache(maxsize=None)(self._prefixes_of)

    def _family(self, provider: str, name: str) -> Family:
        """Return the smallest family of the name: the models of the provider that begin with the same words."""
        own, known = words((spellings(name, provider) or [""])[-1]), provider in self._book
        pool = provider if known else self._maker(name)
        prefixes = self._prefixes(pool)
        for length in range(len(own), 0, -1):
            if own[:length] in prefixes:
                return pool, own[:length]
        return (pool, ()) if known else ("", ())

    def _prefixes_of(self, pool: str) -> frozenset[tuple[str, ...]]:
        members = self._members(pool)
        return frozenset(own[:length] for own, _ in members for length in range(1, len(own) + 1))

    def _dearest(self, family: Family) -> Dearest:
        """Return the bands in force today of the family, without those that another outprices for every count.

        A last band has the default for units that none of them prices; without a family it is all there is, and the
        rule that says so is returned beside it, else "".
        """
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
        priced = frozenset(unit for band in front for unit in band.prices)
        lacking = self.default.each_pico() | dict.fromkeys(priced, 0)
        for band in front:
            lacking |= {unit: pico for unit, pico in band.rates.items() if pico > lacking.get(unit, 0)}
        return Dearest((*front, self.default.band(priced)), "" if front else DEFAULT_RULE, lacking)

    def _members(self, pool: str) -> list[tuple[tuple[str, ...], Band]]:
        book = self._book.get(pool)
        owners = [pool, *(book.fallback_model_providers or ())] if book else []
        return [
            (words(key[1]), band)
            for key, by_context in self._bands.items()
            if key[0] in owners
            for band in by_context.get("", ())
            if band.valid_to is None
        ]
