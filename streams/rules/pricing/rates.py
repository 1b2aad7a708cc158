"""A price is a band of integer rates: fixed provider, model, context, days, hours and size make cost linear in counts.

Prices are pico-USD per unit of the *leaf* counts (own count minus the counts of more specific priced units); `rates`
are the same prices folded into *marginal* rates per reported count, so that cost = sum(count * rate).
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import date, time
from typing import NamedTuple

DAY_SECONDS = 86_400
EVERY_DAY = 0b1111111
FIRST_DAY, LAST_DAY = -(10**6), 10**6
"""Day numbers (since 1970) that stand for an open start and an open end."""
_EPOCH_ORDINAL = date(1970, 1, 1).toordinal()

INPUT, CACHE_READ, CACHE_WRITE = "input_tokens", "cache_read_tokens", "cache_write_tokens"
CACHE_WRITE_1H, OUTPUT, REASONING = "cache_write_1h_tokens", "output_tokens", "output_reasoning_tokens"
COUNTERS = (INPUT, CACHE_READ, CACHE_WRITE, CACHE_WRITE_1H, OUTPUT, REASONING)
"""Billing unit of each token counter of an event, in the order of the event's columns."""
REQUESTS, IMAGES = "requests", "images"
AUDIO_SECONDS, INPUT_AUDIO_SECONDS = "audio_seconds", "input_audio_seconds"

COMPONENTS = ("input", "cache_read", "cache_write", "output", "other")

BOOK, OVERRIDE, FREE, SINGLE = "book", "override", "free", "single_source"
"""`Band.layer`: from the price book; an override rule; one that says it costs nothing; from a public map alone."""


class Unit(NamedTuple):
    """One billed unit. A unit covers another when its dimensions are a subset: output tokens cover output audio."""

    key: str
    per: int
    dimensions: frozenset[tuple[str, str]]

    @property
    def component(self) -> str:
        """Say which of the five components an amount of this unit belongs to."""
        own = dict(self.dimensions)
        if own.get("family") != "tokens":
            return "other"
        if own.get("direction") == "output":
            return "output"
        kind = own.get("token_type", "")
        return kind if kind in ("cache_read", "cache_write") else "input"


Lattice = Mapping[str, Unit]


class Leaf(NamedTuple):
    """What one priced unit is charged for: the signed sum of reported counts that no more specific unit takes."""

    unit: str
    component: str
    terms: tuple[tuple[str, int], ...]


def leaves(units: Iterable[str], lattice: Lattice) -> tuple[Leaf, ...]:
    """Return the leaf of each priced unit, most specific first."""
    ordered = sorted((lattice[key] for key in units), key=lambda unit: (-len(unit.dimensions), unit.key))
    terms: dict[str, Counter[str]] = {}
    for unit in ordered:
        own = Counter({unit.key: 1})
        for other in ordered:
            if other is not unit and unit.dimensions <= other.dimensions:
                own.subtract(terms[other.key])
        terms[unit.key] = own
    return tuple(
        Leaf(unit.key, unit.component, tuple((key, sign) for key, sign in terms[unit.key].items() if sign))
        for unit in ordered
    )


@dataclass(frozen=True, slots=True, eq=False)
class Band:
    """Rates of one model in one context, on a range of UTC days, hours and weekdays, above one input size."""

    provider: str
    model: str
    context: str
    """"" = standard; else the tiers joined by +, such as batch, flex, batch+flex."""
    prices: Mapping[str, int]
    leaves: tuple[Leaf, ...]
    source: str
    valid_from: date | None = None
    valid_to: date | None = None
    from_second: int = 0
    to_second: int = DAY_SECONDS
    weekdays: int = EVERY_DAY
    above_input: int = -1
    without_tokens: bool = False
    """Applies only to a call that reports no token at all (per-image fallback of a token-priced model)."""
    exact: bool = True
    """No rate had to be rounded to an integer."""
    partial: bool = False
    """The tier had no price of its own then: a stand-in, so that what it prices is PARTIAL."""
    at_most_pct: int = 100
    """What a price that is PARTIAL may be at most, in percent of these rates: the dearest known tier or place."""
    layer: str = BOOK
    name: str = ""
    """Name of the override rule; part of the rule id."""
    sure_from: date | None = None
    """The first day on which the source is known to have stated these rates; calls before it are PARTIAL."""

    rule_id: str = field(init=False)
    """Unique in one price book, and the same in the next as long as the conditions are."""
    days: tuple[int, int] = field(init=False)
    """First day and the day after the last, as days since 1970."""

    def __post_init__(self) -> None:
        days = day_number(self.valid_from, FIRST_DAY), day_number(self.valid_to, LAST_DAY)
        object.__setattr__(self, "days", days)
        object.__setattr__(self, "rule_id", self._named())

    def _named(self) -> str:
        parts = [self.provider, self.model, self.context or "standard"]
        if self.name:
            parts.insert(0, f"override:{self.name}")
        if self.layer == SINGLE:
            parts[0] = f"{SINGLE}:{parts[0]}"
        if self.valid_from:
            parts.append(f"from={self.valid_from}")
        if (self.from_second, self.to_second) != (0, DAY_SECONDS):
            parts.append(f"at={clock_text(self.from_second)}-{clock_text(self.to_second)}")
        if self.weekdays != EVERY_DAY:
            parts.append(f"days={self.weekdays:07b}")
        if self.above_input >= 0:
            parts.append(f"above={self.above_input}")
        if self.without_tokens:
            parts.append("no-tokens")
        return "/".join(parts)

    @property
    def sure_day(self) -> int:
        """Return `sure_from` as days since 1970."""
        return day_number(self.sure_from, FIRST_DAY)

    @property
    def rates(self) -> dict[str, int]:
        """Marginal pico-USD per reported unit: what one more of it adds to the cost; zero rates are left out."""
        rates: Counter[str] = Counter()
        for leaf in self.leaves:
            for key, sign in leaf.terms:
                rates[key] += sign * self.prices[leaf.unit]
        return {key: rate for key, rate in sorted(rates.items()) if rate}

    def price_of(self, unit: str, *parents: str) -> int:
        """Price of a unit; one without a price of its own is billed as the nearest priced parent, or not at all."""
        return next((self.prices[key] for key in (unit, *parents) if key in self.prices), 0)


def clip(band: Band, first: date | None, last: date | None) -> Band | None:
    """Return the part of a band from one day to before another; None when nothing is left."""
    starts = [day for day in (band.valid_from, first) if day]
    ends = [day for day in (band.valid_to, last) if day]
    start, end = max(starts, default=None), min(ends, default=None)
    if start and end and start >= end:
        return None
    return band if (start, end) == (band.valid_from, band.valid_to) else replace(band, valid_from=start, valid_to=end)


def effective(band: Band) -> tuple[int, ...]:
    """Return what one token of each counter costs, billed as its parent where it has no price of its own."""
    return (
        band.price_of(INPUT),
        band.price_of(CACHE_READ, INPUT),
        band.price_of(CACHE_WRITE, INPUT),
        band.price_of(CACHE_WRITE_1H, CACHE_WRITE, INPUT),
        band.price_of(OUTPUT),
        band.price_of(REASONING, OUTPUT),
    )


def outprices(other: Band, band: Band) -> bool:
    """Say whether `other` is at least as dear as `band` for every usage."""
    units = band.prices.keys() - set(COUNTERS)
    return (
        other.above_input <= band.above_input
        and all(a >= b for a, b in zip(effective(other), effective(band), strict=True))
        and all(other.prices.get(unit, 0) >= band.prices[unit] for unit in units)
    )


def day_number(day: date | None, default: int = 0) -> int:
    """Return days since 1970-01-01."""
    return default if day is None else day.toordinal() - _EPOCH_ORDINAL


def clock_text(second: int) -> str:
    """Show a second of the day as HH:MM or HH:MM:SS; the end of the day is 24:00."""
    text = f"{second // 3600:02d}:{second // 60 % 60:02d}"
    return f"{text}:{second % 60:02d}" if second % 60 else text


def second_of(value: time) -> int:
    """Return the second of the day."""
    return value.hour * 3600 + value.minute * 60 + value.second
