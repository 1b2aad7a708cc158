"""The override layer: rules in YAML that stand before the price book; each names its source, and the last match wins.

A file has the sections `aliases`, `free`, `fees`, `factors` and `rates`; the shipped file shows each. A wrong file
raises `OverridesError`, which names file, line and key of every mistake.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date, time
from decimal import Decimal
from fnmatch import fnmatchcase
from fractions import Fraction
from math import ceil
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from tollmeter.schemas.money import PICO_PER_USD
from tollmeter.streams.price.book.compile import BEGINS, LATTICE, leaves_of
from tollmeter.streams.rules.pricing import rates
from tollmeter.streams.rules.pricing.rates import Band, second_of
from tollmeter.yaml_files import YamlError, YamlFile, read_yaml

SHIPPED = Path(__file__).with_name("overrides.yaml")

Weekday = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
Price = Annotated[Decimal, Field(ge=0, le=1_000_000, allow_inf_nan=False)]
Pattern = Annotated[str, Field(min_length=1, max_length=256)]


class OverridesError(ValueError):
    """The override file is wrong; the text has one line per mistake: file:line: key: what is wrong."""


class Rule(BaseModel):
    """What every rule says: whom it is for (patterns with * and ?, in lower case), when, and how we know."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, Field(pattern=r"^[\w.:+-]{1,80}$")]
    provider: Pattern = "*"
    model: Pattern = "*"
    deployment: str = "*"
    api_host: str = "*"
    region: str = "*"
    operation: str = "*"
    valid_from: date | None = None
    valid_to: date | None = None
    source: Annotated[str, Field(min_length=3)]

    @field_validator("provider", "model", "deployment", "api_host", "region", "operation")
    @classmethod
    def _lower(cls, value: str) -> str:
        return value.lower()

    @model_validator(mode="after")
    def _order(self) -> "Rule":
        if self.valid_from and self.valid_to and self.valid_from >= self.valid_to:
            raise ValueError(f"valid_from {self.valid_from} is not before valid_to {self.valid_to}")
        return self

    @property
    def always(self) -> bool:
        """Whether nothing of what the rule changes remains in force."""
        return self.valid_from is None and self.valid_to is None

    def asks_for(self, places: Iterable[str]) -> bool:
        """Say whether the rule depends on one of these: deployment, api_host, region, operation."""
        return any(getattr(self, key) != "*" for key in places)

    def matches(self, provider: str, models: Iterable[str], where: Mapping[str, str]) -> bool:
        """Say whether the rule is for this provider, one of these model names, and this place."""
        return (
            _fits(provider, self.provider)
            and any(_fits(model, self.model) for model in models)
            and all(_fits(value, getattr(self, key)) for key, value in where.items())
        )


class Alias(Rule):
    """Calls to this name are priced as another model of the book; `*` is the name behind its last slash."""

    to: Annotated[str, Field(min_length=1)]
    to_provider: str = ""


class Free(Rule):
    """Costs nothing: the only way to a cost of 0."""


class Factor(Rule):
    """The prices of the book times a factor: regional surcharges, negotiated discounts, tiers without own prices.

    With a `tier` it holds for calls of that tier where the book has no price for it. `certain: false` says that the
    price is only a fair guess (PARTIAL), `at_most` what the factor may be then. `only: tokens` leaves fees for searches
    and the like as they are, `only: uncached` the price of cached input, too.
    """

    factor: Annotated[Decimal, Field(gt=0, le=100)]
    tier: Annotated[str, Field(pattern=r"^[a-z0-9_-]*$")] = ""
    certain: bool = True
    at_most: Annotated[Decimal, Field(gt=0, le=100)] | None = None
    only: Literal["all", "tokens", "uncached"] = "all"
    listed: bool = False

    @model_validator(mode="after")
    def _at_most(self) -> "Factor":
        if self.at_most is not None and (self.certain or self.at_most < self.factor):
            raise ValueError("at_most is for factors that are not certain, and no less than the factor")
        return self

    @property
    def at_most_pct(self) -> int:
        """What it may come to at most, in percent of what the factor makes of a price."""
        return 100 if self.at_most is None else ceil(self.at_most * 100 / self.factor)


class Fee(Rule):
    """What the provider bills beside tokens and the book leaves out, in USD for each unit; a price listed PRICED."""

    usd_per_unit: Annotated[dict[str, Price], Field(min_length=1)]

    @field_validator("usd_per_unit")
    @classmethod
    def _units(cls, value: dict[str, Decimal]) -> dict[str, Decimal]:
        for unit in value:
            if unit not in LATTICE:
                raise ValueError(f"no such unit: {unit}")
        return value

    @property
    def pico(self) -> dict[str, int]:
        """The fees in pico-USD a unit."""
        return {unit: round(Fraction(price) * PICO_PER_USD) for unit, price in self.usd_per_unit.items()}


class Rates(Rule):
    """Prices of its own for a context, hours, weekdays and an input size."""

    listed: bool = False
    """The provider's public list price, as the book should have it: PRICED rather than OVERRIDE."""
    context: Annotated[str, Field(pattern=r"^[a-z0-9_.+-]*$|^\*$")] = ""
    hours: Annotated[str, Field(pattern=r"^\d\d:\d\d-\d\d:\d\d$")] = "00:00-24:00"
    weekdays: Annotated[tuple[Weekday, ...], Field(min_length=1)] = WEEKDAYS  # type: ignore[assignment]
    above_input: Annotated[int, Field(ge=0)] | None = None
    without_tokens: bool = False
    usd_per_mtok: dict[str, Price] = {}
    usd_per_unit: dict[str, Price] = {}

    @field_validator("hours")
    @classmethod
    def _hours(cls, value: str) -> str:
        first, last = (_second(part) for part in value.split("-"))
        if first >= last:
            raise ValueError(f"{value} ends before it begins; write two rules for hours across midnight")
        return value

    @model_validator(mode="after")
    def _units(self) -> "Rates":
        listed = [*self.usd_per_mtok, *self.usd_per_unit]
        if not listed:
            raise ValueError("no price: give usd_per_mtok or usd_per_unit; what costs nothing belongs under `free`")
        for unit in listed:
            if unit not in LATTICE:
                raise ValueError(f"no such unit: {unit}")
        for unit in listed:
            above = {key for key, u in LATTICE.items() if u.dimensions < LATTICE[unit].dimensions}
            if missing := sorted(above - set(listed)):
                raise ValueError(f"{unit} is part of {', '.join(missing)}, which has no price here")
        return self

    def band(self) -> Band:
        """Return the rule as a band. Prices that are no integer of pico-USD are rounded half to even."""
        usd = {unit: Fraction(price) / 1_000_000 for unit, price in self.usd_per_mtok.items()} | {
            unit: Fraction(price) for unit, price in self.usd_per_unit.items()
        }
        first, last = (_second(part) for part in self.hours.split("-"))
        prices = {unit: round(price * PICO_PER_USD) for unit, price in sorted(usd.items())}
        return Band(
            provider=self.provider,
            model=self.model,
            context=self.context,
            prices=prices,
            leaves=leaves_of(frozenset(prices)),
            source=self.source,
            valid_from=self.valid_from,
            valid_to=self.valid_to,
            from_second=first,
            to_second=last,
            weekdays=sum(1 << WEEKDAYS.index(day) for day in set(self.weekdays)),
            above_input=-1 if self.above_input is None else self.above_input,
            without_tokens=self.without_tokens,
            layer=rates.BOOK if self.listed else rates.OVERRIDE,
            name=self.name,
            sure_from=(self.valid_from or BEGINS) if self.listed else None,  # a public price, as sure as the book's
        )


class Document(BaseModel):
    """One override file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[1]
    shipped: bool = True
    """Whether the rules that ship with the package stand behind those of this file."""
    aliases: tuple[Alias, ...] = ()
    free: tuple[Free, ...] = ()
    factors: tuple[Factor, ...] = ()
    fees: tuple[Fee, ...] = ()
    rates: tuple[Rates, ...] = ()


@dataclass(frozen=True, slots=True)
class Overrides:
    """The documents in force; the rules of later ones win."""

    documents: tuple[Document, ...] = ()
    own: Document | None = None
    """The user's document among them."""

    def is_own(self, rule: Rule) -> bool:
        """Say whether a rule stands in the user's document: a deal of his, which no public source knows."""
        own = self.own
        return own is not None and any(rule is other for other in (*own.factors, *own.fees, *own.free, *own.rates))

    @property
    def aliases(self) -> tuple[Alias, ...]:
        """All aliases, later ones win."""
        return tuple(rule for document in self.documents for rule in document.aliases)

    @property
    def in_force(self) -> tuple[Rule, ...]:
        """All other rules in the order in which they are applied: later ones win, own prices over free."""
        found: list[Rule] = []
        for document in self.documents:
            places = [factor for factor in document.factors if not factor.tier]
            tiers = [factor for factor in document.factors if factor.tier]
            found += (*document.fees, *places, *document.free, *document.rates, *tiers)
        return tuple(found)


def load_overrides(own_file: str = "") -> Overrides:
    """Read the shipped rules and, after them, those of the user's file. Raises `OverridesError`."""
    own = read_document(Path(own_file)) if own_file else None
    shipped = (read_document(SHIPPED),) if own is None or own.shipped else ()
    return Overrides((*shipped, *((own,) if own else ())), own)


def read_document(path: Path) -> Document:
    """Read and check one file. Raises `OverridesError`."""
    try:
        file = read_yaml(path)
    except YamlError as error:
        raise OverridesError(str(error)) from None
    if not isinstance(file.body, dict):
        raise OverridesError(f"{path}:1: expected a mapping with `version: 1`")
    try:
        document = Document.model_validate(file.body)
    except ValidationError as error:
        raise OverridesError("\n".join(file.problems(error))) from None
    _no_duplicates(file, document)
    return document


def _no_duplicates(file: YamlFile, document: Document) -> None:
    seen: set[str] = set()
    for section in ("aliases", "free", "fees", "factors", "rates"):
        for index, rule in enumerate(getattr(document, section)):
            if rule.name in seen:
                raise OverridesError(file.problem((section, index, "name"), f"{rule.name} is already taken"))
            seen.add(rule.name)


def _fits(text: str, pattern: str) -> bool:
    return pattern in ("*", text) or fnmatchcase(text, pattern)


def _second(text: str) -> int:
    if text == "24:00":
        return rates.DAY_SECONDS
    if not re.fullmatch(r"([01]\d|2[0-3]):[0-5]\d", text):
        raise ValueError(f"{text} is no time of day")
    return second_of(time.fromisoformat(text))
