"""The price book in use: the pinned genai-prices, compiled, behind the override rules; prices a frame of events.

Names are resolved once per distinct combination and remembered, hits and misses alike; no event is looked at in Python
but those that state billed units beside tokens.
"""

import hashlib
import json
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tollmeter.schemas.priced import PRICE_STATUSES
from tollmeter.settings import Settings
from tollmeter.streams.price.book.compile import SOURCE
from tollmeter.streams.price.book.coverage import Coverage
from tollmeter.streams.price.book.fx_history import load_rates
from tollmeter.streams.price.book.overrides import Overrides, load_overrides
from tollmeter.streams.price.book.plans import Planner
from tollmeter.streams.price.book.relatives import Default
from tollmeter.streams.price.book.unstated import put_at_risk
from tollmeter.streams.rules.pricing.fx import Rate, Rates, Staleness, convert_columns
from tollmeter.streams.rules.pricing.model_names import Names, by_subscription
from tollmeter.streams.rules.pricing.price_columns import Columns, Priced, Table, price_columns
from tollmeter.streams.rules.pricing.price_one import DAY_US, FAILED, Amounts, Call, Plan, price_one
from tollmeter.streams.rules.pricing.rates import LAST_DAY

Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]

COUNTER_COLUMNS = (
    "input_tokens",
    "cache_read_tokens",
    "cache_write_tokens",
    "cache_write_1h_tokens",
    "output_tokens",
    "reasoning_tokens",
)
COMPONENT_COLUMNS = (
    "cost_input_nano",
    "cost_cache_read_nano",
    "cost_cache_write_nano",
    "cost_output_nano",
    "cost_other_nano",
)
KEY = (*Names._fields, "status")
REMEMBERED = 50_000
"""Combinations of names kept; a flood of new ones starts the memory afresh."""


class _Resolved(NamedTuple):
    """What a combination of names stands for: its identity, and the number of its plan with three bits behind it."""

    number: int
    provider_id: str
    model_id: str


class Money(NamedTuple):
    """What rows cost in nano-USD, where that is known, and what is at risk, where that is."""

    total: Ints
    known: Mask
    at_risk: Ints
    risky: Mask


class PriceBook:
    """Prices events. Not thread-safe: the memory of resolved names grows while pricing."""

    def __init__(
        self,
        overrides: Overrides,
        fx: Iterable[Rate],
        at_risk: Default,
        staleness: Staleness,
        coverage: Coverage | None = None,
        remembered: int = REMEMBERED,
    ) -> None:
        self.planner = Planner(overrides, coverage or Coverage(), at_risk)
        self.overrides = overrides
        self.staleness = staleness
        self.id = book_id(self.planner, overrides)
        self.use_rates(fx)
        self._table = Table()
        self._remembered = remembered
        self._known: dict[tuple[str, ...], _Resolved] = {}
        self._statuses = pl.Series("price_status", PRICE_STATUSES)
        self._rule_ids = pl.Series("rule_id", [""])
        self._id = pl.Series("price_book", [self.id])

    def price(self, events: pl.DataFrame) -> pl.DataFrame:
        """Return the price columns of these events, in their order.

        Where subscriptions paid for some, also `est_cost_nano`, which is then the list price of those.
        """
        resolved, group = self._resolved(events)
        columns = _columns(events, _of_rows([found.number for found in resolved], group))
        priced = price_columns(self._table, columns)
        rules = self._rules()
        units = events["extra_units"]
        special = np.flatnonzero(units.list.len().to_numpy() > 0)
        if len(special):
            self._price_special(columns, units, special, priced)
        put_at_risk(self._table, events, columns, priced)
        known, risky = _validity(priced.known), _validity(priced.risky)
        amounts, dates = self._in_currencies(columns.at_us, priced)
        made = [
            self._statuses.gather(priced.status),
            _nullable("cost_nano", priced.total, known),
            *(_nullable(name, part, known) for name, part in zip(COMPONENT_COLUMNS, priced.parts, strict=True)),
            _nullable("at_risk_nano", priced.at_risk, risky),
            *amounts,
            self._id.new_from_index(0, len(events)),
            rules.gather(priced.rule),
            pl.Series("provider_id", [found.provider_id for found in resolved], pl.String).gather(group),
            pl.Series("model_id", [found.model_id for found in resolved], pl.String).gather(group),
            *dates,
        ]
        if priced.valued.any():
            stated = (
                events["est_cost_nano"] if "est_cost_nano" in events.columns else _NULL.new_from_index(0, len(events))
            )
            made.append(_nullable("est_cost_nano", priced.value, _validity(priced.valued)).fill_null(stated))
        return pl.DataFrame(made)

    def use_rates(self, fx: Iterable[Rate]) -> None:
        """Convert with these exchange rates from now on; they are no part of the book's id."""
        self.fx = tuple(fx)
        self._eur, self._rub = (Rates([r for r in self.fx if r.currency == name]) for name in ("EUR", "RUB"))

    def convert(self, rows: pl.DataFrame) -> pl.DataFrame:
        """Return the columns in other currencies of priced rows, at their own amounts in USD; NULL without a rate."""
        known, risky = (rows[name].is_not_null().to_numpy() for name in ("cost_nano", "at_risk_nano"))
        money = Money(_ints(rows["cost_nano"]), known, _ints(rows["at_risk_nano"]), risky)
        amounts, dates = self._in_currencies(_ints(rows["event_time"].to_physical()), money)
        return pl.DataFrame([*amounts, *dates])

    @property
    def plans(self) -> tuple[Plan, ...]:
        """The plans in use so far."""
        return tuple(self._table.plans)

    @property
    def known(self) -> int:
        """How many combinations of names are remembered."""
        return len(self._known)

    # ------------------------------------------------------------------ columns in

    def _resolved(self, events: pl.DataFrame) -> tuple[list["_Resolved"], Ints]:
        """Return what each distinct combination of names stands for, and which of them each row has."""
        groups = events.select(KEY).with_row_index("row").group_by(KEY).agg("row")
        found = [self._resolve(key) for key in groups.select(KEY).rows()]
        rows = groups["row"]
        group = np.empty(len(events), np.int64)
        if len(groups):
            group[rows.explode().to_numpy()] = np.repeat(np.arange(len(groups)), rows.list.len().to_numpy())
        return found, group

    def _resolve(self, key: tuple[str | None, ...]) -> "_Resolved":
        found = self._known.get(key)  # type: ignore[arg-type]
        if found is None:
            if len(self._known) >= self._remembered:
                self._known.clear()
            *texts, status = (text or "" for text in key)
            names = Names(*texts)
            number = self._table.add(self.planner.plan(names)) << 3 | by_subscription(names.service_tier) << 2
            number |= (status == "BLOCKED") << 1 | (status in FAILED)
            found = self._known[key] = _Resolved(number, *self.planner.identity(names))  # type: ignore[index]
        return found

    # ------------------------------------------------------------------ columns out

    def _rules(self) -> pl.Series:
        if len(self._rule_ids) != len(self._table.rule_ids):
            self._rule_ids = pl.Series("rule_id", self._table.rule_ids)
        return self._rule_ids

    def _price_special(self, columns: Columns, units: pl.Series, rows: Ints, priced: Priced) -> None:
        """Price the rows with billed units beside tokens one by one, in place."""
        extras = units.gather(rows).to_list()
        for row, extra in zip(rows.tolist(), extras, strict=True):
            call = Call(
                at_us=int(columns.at_us[row]),
                status="BLOCKED" if columns.blocked[row] else "ERROR" if columns.failed[row] else "OK",
                tokens=tuple(int(count[row]) for count in columns.tokens),  # type: ignore[arg-type]
                extra={unit["key"]: unit["value"] for unit in extra},
                subscribed=bool(columns.subscribed[row]),
            )
            amounts = price_one(self._table.plans[int(columns.plan[row])], call)
            _put(priced, row, amounts, self._table.rule_number(amounts.rule_id))

    def _in_currencies(self, at_us: Ints, priced: Priced | Money) -> tuple[list[pl.Series], list[pl.Series]]:
        """Return cost and amount at risk in each currency and the date of the older rate; and the date of each."""
        days = at_us // DAY_US
        money: dict[str, list[pl.Series]] = {"cost": [], "at_risk": []}
        oldest = np.full(len(days), LAST_DAY, np.int64)
        dates = []
        for name, rates in (("eur", self._eur), ("rub", self._rub)):
            day, rate = rates.find(days)
            fresh = (rate > 0) & (days - day <= self.staleness.max_age_days)
            stale = (rate > 0) & ~fresh
            money["cost"].append(_converted(f"cost_{name}_nano", priced.total, rate, priced.known & fresh))
            risky, amount = priced.risky & fresh, priced.at_risk
            if stale.any():  # what is known in USD is at risk in the currency, at the last rate and a margin
                risky = risky | (stale & (priced.known | priced.risky))
                risk = np.where(priced.risky, amount, 0)
                amount = np.where(stale & priced.known, priced.total + risk, amount)
                rate = np.where(stale, self.staleness.raised(rate), rate)
            money["at_risk"].append(_converted(f"at_risk_{name}_nano", amount, rate, risky))
            oldest = np.where(fresh, np.minimum(oldest, day), oldest)
            dates.append(_dates(f"fx_{name}_date", day, fresh))
        # Beside the date of each, for whoever wants one: the older, so that it never looks fresher than it is.
        return [*money["cost"], *money["at_risk"], _dates("fx_date", oldest, oldest < LAST_DAY)], dates


def _dates(column: str, days: Ints, given: Mask) -> pl.Series:
    return _nullable(column, days, _validity(given)).cast(pl.Int32).cast(pl.Date)


def _converted(column: str, amount: Ints, rate: Ints, given: Mask) -> pl.Series:
    valid = _validity(given)
    return _nullable(column, amount if valid is _NONE else convert_columns(amount, rate), valid)


def _columns(events: pl.DataFrame, coded: Ints) -> Columns:
    tokens = [_ints(events[name]) for name in COUNTER_COLUMNS]
    return Columns(
        plan=coded >> 3,
        at_us=_ints(events["event_time"].to_physical()),
        blocked=(coded & 2) != 0,
        failed=(coded & 1) != 0,
        subscribed=(coded & 4) != 0,
        tokens=(tokens[0], tokens[1], tokens[2], tokens[3], tokens[4], tokens[5]),
    )


def _of_rows(numbers: list[int], group: Ints) -> Ints:
    return np.asarray(numbers, np.int64)[group]


_ALL, _NONE = object(), object()
_NULL = pl.Series([None], dtype=pl.Int64)


def _validity(mask: Mask) -> object:
    """Return the mask, or a mark that every or no row is valid, which spares the work on whole columns."""
    return _ALL if mask.all() else mask if mask.any() else _NONE


def _nullable(name: str, values: Ints, valid: Any) -> pl.Series:
    if valid is _NONE:
        return _NULL.new_from_index(0, len(values)).alias(name)
    series = pl.Series(name, values)
    return series if valid is _ALL else series.set(pl.Series(~valid), None)


def _ints(series: pl.Series) -> Ints:
    return np.asarray((series.fill_null(0) if series.null_count() else series).to_numpy(), np.int64)


def _put(priced: Priced, row: int, amounts: Amounts, rule: int) -> None:
    priced.status[row] = PRICE_STATUSES.index(amounts.price_status)
    priced.known[row] = amounts.cost_nano is not None
    priced.total[row] = amounts.cost_nano or 0
    for part, value in zip(priced.parts, amounts.components, strict=True):
        part[row] = value or 0
    priced.risky[row] = amounts.at_risk_nano is not None
    priced.at_risk[row] = amounts.at_risk_nano or 0
    priced.rule[row] = rule
    priced.valued[row] = amounts.value_nano is not None
    priced.value[row] = amounts.value_nano or 0


def book_id(planner: Planner, overrides: Overrides) -> str:
    """Name the book by its name, version and the hash of everything that makes a price."""
    digest = hashlib.sha256()
    for band in planner.bands:
        digest.update(f"{band.rule_id} {sorted(band.prices.items())} {band.valid_to}\n".encode())
    digest.update(planner.coverage.digest)
    for document in overrides.documents:
        digest.update(json.dumps(document.model_dump(mode="json"), sort_keys=True).encode())
    return f"{SOURCE.replace(' ', '-')}-{digest.hexdigest()[:12]}"


def load(settings: Settings) -> PriceBook:
    """Build the book that these settings ask for. Raises `OverridesError` or `FxError` for a wrong file."""
    at_risk = Default(settings.at_risk_usd_per_mtok)
    staleness = Staleness(settings.fx_max_age_days, settings.fx_stale_margin_pct)
    return PriceBook(load_overrides(settings.prices_file), load_rates(settings.fx_file), at_risk, staleness)
