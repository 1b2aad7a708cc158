"""genai-prices, asked once per model, day range, hour range and context, becomes a flat table of integer rates.

The library keeps its own precedence; nothing here re-implements it. Of the price context, `processing`, `service_tier`
and `speed` are compiled: what an event can state.
"""

from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from fractions import Fraction
from functools import cache
from importlib.metadata import version
from itertools import groupby, pairwise, product

from genai_prices.data import providers
from genai_prices.data_units import unit_data
from genai_prices.types import ModelInfo, ModelPrice, Provider, StartDateConstraint, TieredPrices, TimeOfDateConstraint

from tollmeter.schemas.money import PICO_PER_USD
from tollmeter.streams.rules.pricing.rates import DAY_SECONDS, IMAGES, OUTPUT, Band, Leaf, Unit, leaves, second_of

PROVIDERS: tuple[Provider, ...] = tuple(providers)
SOURCE = f"genai-prices {version('genai-prices')}"
CONTEXT_KEYS = ("processing", "service_tier", "speed")

IMAGE_VARIANTS = (
    *("low", "low_large", "medium", "medium_large", "high", "high_large"),
    *("hd", "hd_large", "large", "256", "512"),
)
"""Images that cost another price than one of 1024 x 1024: by quality, and by size (large = a side beyond 1024)."""
SEARCH_CONTEXTS = ("medium", "high")
"""What Perplexity adds to the fee of a request for more than a low search context."""


UNTOLD_TOKENS = ("cache_storage_tokens", "other_model_tokens", "unexplained_tokens")
"""Tokens of which an answer does not say enough for a price."""
UNPRICED = (
    *("connector_calls", "container_sessions", "document_search_calls", "generated_images", "input_images"),
    *("maps_searches", "premium_web_searches", "video_seconds", "fallback_credits", "guardrail_units"),
    *("store_groundings", "preview_web_searches", "search_blocks"),
)
"""Units of answers that no source prices; an override may."""


def _own_units() -> dict[str, Unit]:
    """Return the units that genai-prices has no name for."""
    images = [(f"images_{name}", {"family": "images", "variant": name}) for name in IMAGE_VARIANTS]
    contexts = [(f"search_context_{name}", {"family": "search_context", "size": name}) for name in SEARCH_CONTEXTS]
    others = [(name, {"family": name}) for name in (IMAGES, "search_sources", *UNTOLD_TOKENS, *UNPRICED)]
    return {key: Unit(key, 1, frozenset(dimensions.items())) for key, dimensions in (*images, *contexts, *others)}


LATTICE = {
    key: Unit(key, raw["per"], frozenset(raw.get("dimensions", {}).items())) for key, raw in unit_data.items()
} | _own_units()
UNIT_OF_PRICE = {raw.get("price_key", key): LATTICE[key] for key, raw in unit_data.items()}

_MAKES = (("-tts", "output_audio_tokens"), ("gpt-image-", "output_image_tokens"))
"""Models that speak, or draw, and do nothing else: the price of their output is that of sound, or of images."""

Context = tuple[tuple[str, str], ...]
Sized = tuple[int, dict[str, int], bool]
"""Input size above which the prices hold, prices per unit, and whether they needed no rounding."""
Listing = tuple[list[Sized], bool]
"""The prices at an instant, and whether they are the standard ones because the tier had none yet."""


@cache
def leaves_of(units: frozenset[str]) -> tuple[Leaf, ...]:
    """Return the leaves of a set of priced units; bands with the same units share them."""
    return leaves(units, LATTICE)


@cache
def compile_book() -> tuple[Band, ...]:
    """Return every band of the price book, in an order that does not change; a book that is read again shares them."""
    return tuple(
        band for provider in PROVIDERS for model in provider.models for band in compile_model(provider.id, model)
    )


def compile_model(provider: str, model: ModelInfo) -> Iterator[Band]:
    """Yield the bands of one model: per context by hours, by days, by size. A model without a price yields none."""
    limits = constraints(model)
    days = sorted({c.start_date for c in limits if isinstance(c, StartDateConstraint)})
    hours = [c for c in limits if isinstance(c, TimeOfDateConstraint)]
    seconds = sorted({0, DAY_SECONDS, *(utc_second(t) for c in hours for t in (c.start_time, c.end_time))})
    for context in contexts(model):
        for begin, end in pairwise(seconds):
            for first, last, (sized, unlisted) in _runs(model, context, days, begin):
                for above, listed, exact in sized:
                    prices = _with_kind(model.id, listed)
                    yield Band(
                        provider=provider,
                        model=model.id,
                        context=context_name(context),
                        prices=prices,
                        leaves=leaves_of(frozenset(prices)),
                        source=SOURCE,
                        valid_from=first,
                        valid_to=last,
                        from_second=begin,
                        to_second=end,
                        above_input=above,
                        exact=exact,
                        partial=unlisted,
                        sure_from=first or BEGINS,
                    )


def _with_kind(model: str, prices: dict[str, int]) -> dict[str, int]:
    """Return the prices with that of the one kind of output that a model makes, where it makes nothing else."""
    kind = next((unit for name, unit in _MAKES if name in model), "")
    if not kind or OUTPUT not in prices or any(unit.startswith("output_") and unit != OUTPUT for unit in prices):
        return prices
    return dict(sorted({kind: prices[OUTPUT], **prices}.items()))


def _runs(
    model: ModelInfo, context: Context, days: list[date], second: int
) -> Iterator[tuple[date | None, date | None, Listing]]:
    """Yield the day ranges between which the price at this second of the day does not change."""
    before = days[0] - timedelta(days=1) if days else date(1970, 1, 1)
    answers = []
    for start, probe in zip([None, *days], [before, *days], strict=True):
        instant = datetime.combine(probe, time(), UTC) + timedelta(seconds=second)
        sized = list(_sized(model.get_prices(instant, dict(context))))
        unlisted = bool(context) and sized == list(_sized(model.get_prices(instant, {})))
        answers.append((start, (sized, unlisted)))
    runs = [(next(group)[0], listing) for listing, group in groupby(answers, key=lambda answer: answer[1])]
    for (first, listing), (last, _) in pairwise([*runs, (None, ([], False))]):
        yield first, last, listing


def _sized(price: ModelPrice) -> Iterator[Sized]:
    listed = {key: value for key, value in vars(price).items() if value is not None and key in UNIT_OF_PRICE}
    starts = sorted({t.start for value in listed.values() if isinstance(value, TieredPrices) for t in value.tiers})
    for start in [-1, *starts] if listed else ():
        exact, prices = True, {}
        for key, value in listed.items():
            if isinstance(value, TieredPrices):
                value = next((t.price for t in reversed(value.tiers) if start >= t.start), value.base)  # noqa: PLW2901
            unit = UNIT_OF_PRICE[key]
            pico = Fraction(value) * PICO_PER_USD / unit.per
            exact &= pico.denominator == 1
            prices[unit.key] = round(pico)  # half to even
        yield start, dict(sorted(prices.items())), exact


def contexts(model: ModelInfo) -> list[Context]:
    """Return every combination of context values for which the model may have prices of its own; () = standard."""
    choices: dict[str, list[str]] = defaultdict(list)
    for variant in model.price_variants or ():
        for key, value in variant.when.items():
            changes = any(price is not None for price in vars(variant.prices).values())
            if key in CONTEXT_KEYS and changes and value not in choices[key]:
                choices[key].append(value)
    pairs = product(*([(key, value) for value in ("", *values)] for key, values in sorted(choices.items())))
    return [tuple((key, value) for key, value in chosen if value) for chosen in pairs]


def context_name(context: Context) -> str:
    """Return the name of a context: its values joined by +."""
    return "+".join(value for _, value in context)


def constraints(model: ModelInfo) -> list[StartDateConstraint | TimeOfDateConstraint]:
    """Return the conditions in time that any price of the model has."""
    conditional = model.prices if isinstance(model.prices, list) else []
    return [c.constraint for c in (*conditional, *(model.price_variants or ())) if c.constraint is not None]


def utc_second(value: time) -> int:
    """Return the UTC second of the day of a time of day; without an offset it is UTC."""
    moment = datetime.combine(date(1970, 1, 1), value, value.tzinfo or UTC)
    return second_of(moment.astimezone(UTC).time())


BEGINS = min(
    c.start_date
    for provider in PROVIDERS
    for model in provider.models
    for c in constraints(model)
    if isinstance(c, StartDateConstraint)
)
"""The first day that the book names: it states today's rates, and what was changed since. Before it nothing is sure."""
