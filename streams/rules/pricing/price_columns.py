"""Prices whole columns of calls in integer arithmetic; equal to `pricing.price_one` row by row, which tests hold it to.

Rows arrive with the number of their plan. A plan whose last band always fits needs no search; the others are unfolded
to (row, band) pairs, of which the last fitting one wins. int64 is enough: 1e7 tokens at 6e8 pico are 6e15.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tollmeter.schemas.event import MAX_TOKENS
from tollmeter.schemas.money import MAX_EVENT_NANO
from tollmeter.schemas.priced import PRICE_STATUSES
from tollmeter.streams.rules.pricing import rates
from tollmeter.streams.rules.pricing.price_one import DAY_US, Plan
from tollmeter.streams.rules.pricing.rates import Band

Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]

PRICED, PARTIAL, FREE, UNKNOWN_MODEL, NO_USAGE, INVALID, OVERRIDE, SUBSCRIPTION = range(len(PRICE_STATUSES))

_REASONING_BIT = 1 << rates.COUNTERS.index(rates.REASONING)
# Rows of the price matrix. A part without a price of its own stays in its whole, so it is taken out only if priced.
_IN, _READ, _READ_OUT, _WRITE, _WRITE_OUT, _HOUR, _OUT, _REASONING, _REQUEST, _IMAGE = range(10)
_FIRST, _LAST, _FROM, _TO, _WEEKDAYS, _ABOVE, _NO_TOKENS = range(7)
_LAYERS = (rates.BOOK, rates.OVERRIDE, rates.FREE, rates.SINGLE)
NO_BAND = 0
"""Number of the entry that stands for "no band"."""


@dataclass(frozen=True, slots=True)
class Columns:
    """The columns that pricing reads; `tokens` in the order of `rates.COUNTERS`."""

    plan: Ints
    at_us: Ints
    blocked: Mask
    failed: Mask
    subscribed: Mask
    tokens: tuple[Ints, Ints, Ints, Ints, Ints, Ints]


@dataclass(slots=True)
class Priced:
    """Amounts mean nothing where `known`, `risky`, `valued` is false. `rule` is a place in `Table.rule_ids`."""

    status: NDArray[np.int8]
    known: Mask
    total: Ints
    parts: list[Ints]
    risky: Mask
    at_risk: Ints
    rule: Ints
    valued: Mask
    value: Ints
    """List prices of calls that a subscription pays."""


class Table:
    """The plans in use, as arrays. Plans are added when first met and never change."""

    def __init__(self) -> None:
        self.plans: list[Plan] = []
        self.rule_ids: list[str] = [""]
        self._rules: dict[str, int] = {"": 0}
        self._prices: list[tuple[int, ...]] = [(0,) * 10]
        self._limits: list[tuple[int, ...]] = [(0,) * 7]
        self._marks: list[tuple[int, ...]] = [(0,) * 6]
        self._heads: list[tuple[int, ...]] = []
        self._lacking: list[tuple[int, ...]] = []
        self._numbers: dict[Plan, int] = {}
        self._frozen = False

    def add(self, plan: Plan) -> int:
        """Return the number of a plan, adding it when new."""
        number = self._numbers.get(plan)
        if number is None:
            number = self._numbers[plan] = len(self.plans)
            self.plans.append(plan)
            start, risk_start = self._entries(plan.bands), self._entries(plan.dearest)
            simple = not plan.bands or _always(plan.bands[-1])
            last = start + len(plan.bands) - 1 if plan.bands else NO_BAND
            marks = plan.partial, plan.one_image, self.rule_number(plan.risk_rule)
            head = start, len(plan.bands), last, simple, risk_start, len(plan.dearest), *marks
            self._heads.append(head)
            self._lacking.append((plan.lacking.get(rates.INPUT, 0), plan.lacking.get(rates.OUTPUT, 0)))
            self._frozen = False
        return number

    def rule_number(self, rule_id: str) -> int:
        """Return the place of a rule in `rule_ids`."""
        rule = self._rules.setdefault(rule_id, len(self._rules))
        if rule == len(self.rule_ids):
            self.rule_ids.append(rule_id)
        return rule

    def _entries(self, bands: Iterable[Band]) -> int:
        start = len(self._prices)
        for band in bands:
            rule = self.rule_number(band.rule_id)
            self._prices.append(_prices(band))
            first, last = band.days
            self._limits.append(
                (first, last, band.from_second, band.to_second, band.weekdays, band.above_input, band.without_tokens)
            )
            priced = sum(1 << i for i, unit in enumerate(rates.COUNTERS) if unit in band.prices)
            flags = (rates.REQUESTS in band.prices) + 2 * (rates.IMAGES in band.prices) + 4 * band.partial
            layer = _LAYERS.index(band.layer)
            self._marks.append((priced, flags, layer, rule, band.sure_day, band.at_most_pct))
        return start

    def freeze(self) -> None:
        """Turn what was added into arrays."""
        if not self._frozen:
            self.prices = np.array(self._prices, np.int64).T.copy()
            self.limits = np.array(self._limits, np.int64).T.copy()
            self.marks = np.array(self._marks, np.int64).T.copy()
            self.heads = np.array(self._heads, np.int64).reshape(-1, 9).T.copy()
            self.lacking = np.array(self._lacking, np.int64).reshape(-1, 2).T.copy()
            self._frozen = True


def _prices(band: Band) -> tuple[int, ...]:
    own = band.prices
    into = own.get(rates.INPUT, 0)
    write, hour = own.get(rates.CACHE_WRITE, 0), own.get(rates.CACHE_WRITE_1H)
    out, reasoning = own.get(rates.OUTPUT, 0), own.get(rates.REASONING)
    return (
        into,
        own.get(rates.CACHE_READ, 0),
        into if rates.CACHE_READ in own else 0,
        write,
        into if rates.CACHE_WRITE in own else 0,
        0 if hour is None else hour - write,
        out,
        0 if reasoning is None else reasoning - out,
        own.get(rates.REQUESTS, 0),
        own.get(rates.IMAGES, 0),
    )


def _always(band: Band) -> bool:
    hours = (band.from_second, band.to_second) == (0, rates.DAY_SECONDS)
    days = band.valid_from is None and band.valid_to is None and band.weekdays == rates.EVERY_DAY
    return hours and days and band.above_input < 0 and not band.without_tokens


def price_columns(table: Table, columns: Columns) -> Priced:
    """Price every row. Rows with other billed units than tokens and one image are for `price_one`."""
    table.freeze()
    tokens, heads = columns.tokens, table.heads
    entry = _find_entries(table, columns)
    image = (heads[7][columns.plan] != 0) & ~columns.failed if heads[7].any() else np.zeros(len(entry), np.bool_)
    priced, flags, layer, rule, sure, most = table.marks[:, entry]
    has_band = entry != NO_BAND
    used: Ints = sum(((count > 0).astype(np.int64) << i for i, count in enumerate(tokens)), np.zeros_like(entry))
    image &= ((flags & 2) != 0) | (~has_band & (used == 0))

    parts = _parts(table.prices[:, entry], tokens, image)
    total = round_thousandth(sum(parts[1:], parts[0]))
    status = np.where(layer == 1, OVERRIDE, PRICED).astype(np.int8)
    early = (heads[6][columns.plan] != 0) | (columns.at_us // DAY_US < sure)
    lacking = np.where(priced != 0, used & ~priced & ~_REASONING_BIT, 0)
    status[early | ((flags & 4) != 0) | (lacking != 0)] = PARTIAL
    status[total > MAX_EVENT_NANO] = INVALID
    covered = has_band & (((used & priced) != 0) | ((flags & 1) != 0) | (image & ((flags & 2) != 0)))
    status[~covered] = UNKNOWN_MODEL
    status[(used == 0) & ~image] = NO_USAGE
    free = has_band & (layer == 2)
    status[free] = FREE
    status[_impossible(tokens)] = INVALID
    status[columns.blocked] = FREE

    known = (status != UNKNOWN_MODEL) & (status != NO_USAGE) & (status != INVALID)
    paid, valued = _by_subscription(columns, status, known)
    value = np.where(free, 0, total)
    total[nothing := columns.blocked | free | paid] = 0
    nano = _split(parts, total, known & ~nothing)
    risky, at_risk = _at_risk(table, columns, image, (status == UNKNOWN_MODEL) | ((status == PARTIAL) & early))
    rows = np.flatnonzero(status == PARTIAL)
    if len(rows):
        least = np.maximum(-(-total[rows] * (most[rows] - 100) // 100), at_risk[rows] - total[rows])
        at_risk[rows] = np.minimum(least + _missing(table, columns, entry, lacking, rows), MAX_EVENT_NANO)
        risky[rows] = at_risk[rows] > 0
    unknown = np.where(status == UNKNOWN_MODEL, heads[8][columns.plan], 0)
    rule = np.where(known & ~columns.blocked & (valued | ~paid), rule, unknown)
    return Priced(status, known, total, nano, risky, at_risk, rule, valued, value)


def _by_subscription(columns: Columns, status: NDArray[np.int8], known: Mask) -> tuple[Mask, Mask]:
    """Settle in place what subscriptions pay; return those rows, and those of them whose list price is known."""
    paid = columns.subscribed & ~columns.blocked & (status != INVALID)
    valued = paid & known
    status[paid], known[paid] = SUBSCRIPTION, True
    return paid, valued


def _find_entries(table: Table, columns: Columns) -> Ints:
    heads, plan = table.heads, columns.plan
    entry: Ints = heads[2][plan]
    hard = np.flatnonzero(heads[3][plan] == 0)
    if len(hard) == 0:
        return entry
    pair, candidate, starts = _unfold(heads[0][plan[hard]], heads[1][plan[hard]])
    day, rest = np.divmod(columns.at_us[hard], DAY_US)
    second, weekday = rest // 1_000_000, np.left_shift(1, (day + 3) % 7)
    limits = table.limits[:, candidate]
    size = columns.tokens[0][hard]
    fits = (limits[_FIRST] <= day[pair]) & (day[pair] < limits[_LAST]) & (size[pair] > limits[_ABOVE])
    fits &= (limits[_FROM] <= second[pair]) & (second[pair] < limits[_TO])
    fits &= (limits[_WEEKDAYS] & weekday[pair]) != 0
    empty = (size == 0) & (columns.tokens[4][hard] == 0)
    fits &= (limits[_NO_TOKENS] == 0) | empty[pair]
    entry[hard] = np.maximum.reduceat(np.where(fits, candidate, NO_BAND), starts)
    return entry


def _unfold(start: Ints, count: Ints) -> tuple[Ints, Ints, Ints]:
    """Return (row, entry) pairs of rows with at least one entry each, and where each row's pairs begin."""
    starts = np.cumsum(count) - count
    pair = np.repeat(np.arange(len(count)), count)
    return pair, np.arange(len(pair)) - starts[pair] + start[pair], starts


def _parts(price: Ints, tokens: tuple[Ints, ...], image: Mask) -> list[Ints]:
    """Return the five components in pico-USD."""
    total, read, write, hour, out, reasoning = tokens
    return [
        total * price[_IN] - read * price[_READ_OUT] - write * price[_WRITE_OUT],
        read * price[_READ],
        write * price[_WRITE] + hour * price[_HOUR],
        out * price[_OUT] + reasoning * price[_REASONING],
        price[_REQUEST] + image * price[_IMAGE],
    ]


def _impossible(tokens: tuple[Ints, ...]) -> Mask:
    total, read, write, hour, out, reasoning = tokens
    bad: Mask = (read + write > total) | (hour > write) | (reasoning > out)
    for count in tokens:
        bad |= (count < 0) | (count > MAX_TOKENS)
    return bad


def round_thousandth(pico: Ints) -> Ints:
    """Return pico / 1000 as integers, half to even."""
    nano, rest = np.divmod(pico, 1_000)
    up: Any = (rest > 500) | ((rest == 500) & (nano & 1 == 1))
    return np.asarray(nano + up, np.int64)


def _split(parts: list[Ints], total: Ints, rows: Mask) -> list[Ints]:
    """Round the parts of `rows` so that they add up to the total (largest remainder, ties to the first part)."""
    nano, rest = np.divmod(np.stack(parts), 1_000)
    nano *= rows
    short = (total - nano.sum(axis=0)) * rows
    left = np.flatnonzero(short > 0)
    if len(left):
        order = np.argsort(-rest[:, left], axis=0, kind="stable")
        rank = np.empty_like(order)
        np.put_along_axis(rank, order, np.arange(len(parts))[:, None], axis=0)
        nano[:, left] += rank < short[left]
    return list(nano)


def _missing(table: Table, columns: Columns, entry: Ints, lacking: Ints, rows: Ints) -> Ints:
    """Return what the counters cost at most that have no price of their own, in nano-USD."""
    into, out = table.lacking[:, columns.plan[rows]]
    cached, bits = table.prices[_IN, entry[rows]], lacking[rows]
    most = into, cached, cached, cached, out, np.zeros_like(into)
    parts = [count[rows] * most[i] * (bits >> i & 1) for i, count in enumerate(columns.tokens)]
    return round_thousandth(sum(parts[1:], parts[0]))


def _at_risk(table: Table, columns: Columns, image: Mask, rows: Mask) -> tuple[Mask, Ints]:
    risky, amount = np.zeros(len(rows), np.bool_), np.zeros(len(rows), np.int64)
    heads, plan = table.heads, columns.plan
    wanted = np.flatnonzero(rows & (heads[5][plan] > 0)) if rows.any() else ()
    if len(wanted) == 0:
        return risky, amount
    pair, candidate, starts = _unfold(heads[4][plan[wanted]], heads[5][plan[wanted]])
    tokens = tuple(count[wanted][pair] for count in columns.tokens)
    parts = _parts(table.prices[:, candidate], tokens, image[wanted][pair])
    pico: Ints = sum(parts[1:], parts[0]) * (tokens[0] > table.limits[_ABOVE, candidate])
    worst = np.maximum.reduceat(pico, starts)
    risky[wanted] = worst > 0
    amount[wanted] = np.minimum(round_thousandth(worst), MAX_EVENT_NANO)
    return risky, amount
