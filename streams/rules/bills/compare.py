"""Bill against ledger: requests, tokens by meter, our rate for their tokens, money; a difference has one of nine names.

Theirs minus ours is the sum of all differences, exactly; what is left of a bill without them is matched.
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date, timedelta
from decimal import Decimal, localcontext
from typing import NamedTuple

from tollmeter.streams.rules.bills.cells import NANO, ZERO, Cell, Ours, Sides, Theirs
from tollmeter.streams.rules.bills.lines import EXACT, TOKENS
from tollmeter.streams.rules.bills.naming import (
    DAY_BORDER,
    FEE,
    LATE,
    OURS_ONLY,
    PRICE,
    PROVIDER_ONLY,
    ROUNDING,
    Amounts,
    Question,
    name,
)
from tollmeter.streams.rules.bills.rates import Rates

ABSORBED = Decimal("0.03")
"""A remainder below this share of a difference in tokens comes of mixed rates within the cell, and goes with it."""
FLOAT_NOISE = Decimal("1e-6")
"""Providers calculate with floats: amounts agree to this share."""


class Difference(NamedTuple):
    """One difference: theirs minus ours in USD, where, why, and the tokens and calls behind it."""

    kind: str
    cause: str
    usd: Decimal
    cell: Cell
    tokens: Amounts = (ZERO,) * len(TOKENS)
    calls: int = 0
    item: str = ""
    theirs_usd: Decimal | None = None
    expected_usd: Decimal | None = None
    """For prices: their amount, and their tokens at our rate."""


@dataclass
class Compared:
    """The result. Sums in USD."""

    billed: Decimal
    ours: Decimal
    differences: list[Difference] = field(default_factory=list)
    uncosted_days: int = 0
    """Days with counts of tokens and no amount: compared in tokens alone."""

    @property
    def matched(self) -> Decimal:
        return self.billed - sum((one.usd for one in self.differences if one.usd > 0), ZERO)


def compare(both: Sides, question: Question) -> Compared:
    """Return every difference; the sum of `usd` is billed minus ours."""
    with localcontext(EXACT):
        return _Comparison(both, question).run()


class _Comparison:
    def __init__(self, both: Sides, question: Question) -> None:
        self._both, self._asked = both, question
        self._usage: list[Difference] = []
        self._rates = Rates(both, question.rate)

    def run(self) -> Compared:
        both = self._both
        counted = both.counted
        series: dict[tuple[str, str], set[date]] = defaultdict(set)
        for cell in (*both.usage, *both.ours):
            if cell.day in counted:
                series[cell.key, cell.model].add(cell.day)
        for (key, model), days in series.items():
            self._usage += self._tokens(key, model, sorted(days))
        fees = list(self._fees())
        money = list(self._money())
        costed = both.costed
        if not costed:  # no amounts anywhere: their tokens at our rates are the bill
            usage_usd = sum((one.usd for one in self._usage), ZERO)
            ours = sum((one.usd for one in both.ours.values()), ZERO)
            return Compared(ours + usage_usd, ours, _sorted(self._usage), len(counted))
        billed = sum((one.usd or ZERO for one in both.money.values()), ZERO) + sum(both.fees.values(), ZERO)
        ours = sum((one.usd for cell, one in both.ours.items() if cell.day in costed), ZERO)
        return Compared(billed, ours, _sorted([*money, *fees]), len(counted - costed))

    # ------------------------------------------------------------------ tokens

    def _tokens(self, key: str, model: str, days: list[date]) -> Iterator[Difference]:
        """Name the differences in tokens of one key and model, valued at our rates."""
        left = {day: self._delta(Cell(key, model, day)) for day in days}
        for day in days:
            following = day + timedelta(days=1)
            if following in left:
                yield from self._border(Cell(key, model, day), Cell(key, model, following), left)
        for day, delta in left.items():
            if any(delta):
                cell = Cell(key, model, day)
                kind, cause, calls = name(self._both, self._asked, cell, delta)
                yield Difference(kind, cause, self._value(cell, delta), cell, delta, calls)

    def _delta(self, cell: Cell) -> Amounts:
        theirs, ours = self._both.usage.get(cell, Theirs()), self._both.ours.get(cell, Ours())
        known = cell in self._both.usage
        return tuple(
            ZERO if known and count is None else (count or ZERO) - own
            for count, own in zip(theirs.tokens, ours.tokens, strict=True)
        )

    def _border(self, cell: Cell, following: Cell, left: dict[date, Amounts]) -> Iterator[Difference]:
        """Tell what moved over midnight: as many tokens on one day as are lacking on the other, and not more than the
        calls beside midnight have.
        """
        here, there = left[cell.day], left[following.day]
        forward = sum(here) > 0  # they count it on the earlier day
        own = self._both.ours
        near = own.get(following, Ours()).early if forward else own.get(cell, Ours()).late
        moved = []
        for mine, other, most in zip(here, there, near, strict=True):
            opposite = mine * other < 0 and (mine > 0) == forward
            moved.append(min(abs(mine), abs(other), Decimal(most)) if opposite else ZERO)
        gaps = sum(map(abs, here)), sum(map(abs, there))
        total = sum(moved)
        if total == 0 or total < min(gaps) * Decimal("0.9"):
            return
        sign = 1 if forward else -1
        for place, direction in ((cell, sign), (following, -sign)):
            tokens = tuple(direction * count for count in moved)
            left[place.day] = tuple(a - b for a, b in zip(left[place.day], tokens, strict=True))
            cause = "earlier" if forward else "later"
            yield Difference(DAY_BORDER, cause, self._value(place, tokens), place, tokens)

    def _value(self, cell: Cell, tokens: Amounts) -> Decimal:
        return sum(
            (count * (self._rates.of(cell, number) or ZERO) for number, count in enumerate(tokens) if count), ZERO
        )

    # ------------------------------------------------------------------ money

    def _money(self) -> Iterator[Difference]:
        """Compare amounts; what is not explained by tokens is price or rounding, or there are no tokens to say more."""
        both = self._both
        owned: dict[Cell, Ours] = {}
        for cell, own in both.ours.items():
            place = both.money_cell(cell)
            owned[place] = owned[place].plus(own) if place in owned else own
        explained: dict[Cell, list[Difference]] = defaultdict(list)
        for one in self._usage:
            explained[both.money_cell(one.cell)].append(one)
        for cell in sorted({*owned, *both.money, *explained}):
            if cell.day in both.costed:
                theirs, ours = both.money.get(cell, Theirs()), owned.get(cell, Ours())
                yield from self._cell(cell, theirs, ours, explained[cell])

    def _cell(self, cell: Cell, theirs: Theirs, ours: Ours, explained: list[Difference]) -> Iterator[Difference]:
        billed, own = theirs.usd or ZERO, ours.usd - ours.nano[-1] * NANO  # other units are compared as fees
        expected = own + sum((one.usd for one in explained), ZERO)
        rest = billed - expected
        if not ours.calls and explained:
            yield from _scaled(explained, billed)
            return
        weight = sum((abs(one.usd) for one in explained), ZERO)
        if rest and explained and abs(rest) <= weight * ABSORBED and abs(rest) > self._tolerance(theirs, ours):
            explained, rest = _absorbed(explained, rest), ZERO
        yield from explained
        if not rest:
            return
        if abs(rest) <= self._tolerance(theirs, ours):
            yield Difference(ROUNDING, "rounding", rest, cell, calls=ours.calls)
        else:
            kind, cause = self._rest(cell, theirs, ours, rest)
            yield Difference(kind, cause, rest, cell, calls=ours.calls, theirs_usd=billed, expected_usd=expected)

    def _rest(self, cell: Cell, theirs: Theirs, ours: Ours, rest: Decimal) -> tuple[str, str]:
        if not ours.calls:
            known = not self._both.money_keyed or cell.key in self._asked.known_keys
            return PROVIDER_ONLY, "unmetered" if known else "unknown_key"
        if cell.day >= self._asked.open_from and rest < 0:
            return LATE, "open"
        if ours.unpriced and rest > 0:
            return PRICE, "unpriced"
        if cell.day in self._both.counted:
            return PRICE, "rate"
        if theirs.usd is None:
            return OURS_ONLY, "not_on_bill"
        return PRICE, "no_counts"

    def _tolerance(self, theirs: Theirs, ours: Ours) -> Decimal:
        """Return how far amounts may differ by rounding: half a step a line, and half a nano-USD a call."""
        share = (theirs.usd or ZERO).copy_abs() * FLOAT_NOISE
        return self._asked.unit * theirs.lines / 2 + (ours.calls + 1) * NANO / 2 + share

    def _fees(self) -> Iterator[Difference]:
        """Compare what is billed for anything but tokens with the units that we price, day by day."""
        own: dict[date, Decimal] = defaultdict(lambda: ZERO)
        for cell, one in self._both.ours.items():
            own[cell.day] += one.nano[-1] * NANO
        items = sorted(self._both.fees.items(), key=lambda item: -item[1])
        for (day, item), usd in items:
            known = min(usd, own[day]) if usd > 0 else ZERO
            own[day] -= known
            if usd - known:
                cause = "credit" if usd < 0 else "item"
                yield Difference(FEE, cause, usd - known, Cell("", "", day), item=item)
        for day, usd in own.items():
            if usd and day in self._both.costed:
                yield Difference(OURS_ONLY, "units", -usd, Cell("", "", day))


def _scaled(explained: list[Difference], billed: Decimal) -> list[Difference]:
    """Return differences of a cell that is theirs alone, at what they charge for it."""
    total = sum((one.usd for one in explained), ZERO)
    if not total:
        counts = [sum(one.tokens, ZERO) for one in explained]
        shares = [count / sum(counts, ZERO) if sum(counts) else Decimal(1) / len(counts) for count in counts]
    else:
        shares = [one.usd / total for one in explained]
    made = [one._replace(usd=billed * share) for one, share in zip(explained, shares, strict=True)]
    rest = billed - sum((one.usd for one in made), ZERO)
    return [made[0]._replace(usd=made[0].usd + rest), *made[1:]]


def _absorbed(explained: list[Difference], rest: Decimal) -> list[Difference]:
    largest = max(explained, key=lambda one: abs(one.usd))
    return [one._replace(usd=one.usd + rest) if one is largest else one for one in explained]


def _sorted(found: list[Difference]) -> list[Difference]:
    return sorted(
        (one for one in found if one.usd or any(one.tokens)), key=lambda one: (-abs(one.usd), one.cell, one.item)
    )
