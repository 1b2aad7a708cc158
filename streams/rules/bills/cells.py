"""The two sides of a comparison, cell by cell: a key, a model and a day, with tokens by meter and money."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from typing import NamedTuple

from tollmeter.streams.rules.bills.lines import ALL, EXACT, OTHER, PROMPT, REQUESTS, TOKENS, Line, add

ZERO = Decimal(0)
NANO = Decimal("1e-9")
COSTS = (".costs", ".cost")
"""How the names of sources end that repeat the tokens of a usage report."""
COUNTING = frozenset(
    {"openai.usage.completions", "openai.usage.embeddings", "anthropic.usage", "openrouter.activity", "aws.cur"}
)
COSTING = frozenset(
    {"openai.costs", "anthropic.cost", "openrouter.activity", "aws.cur", "google.billing", "azure.cost"}
)
"""Sources that are made to count tokens, and to state amounts: a day without a line is a day without use."""
Vector = tuple[int, ...]
"""Tokens by meter, in the order of `TOKENS`."""
NO_TOKENS: Vector = (0,) * len(TOKENS)


class Cell(NamedTuple):
    """Where an amount belongs. Where a bill names no key or no model, all of ours stand under ""."""

    key: str
    model: str
    day: date


@dataclass(frozen=True, slots=True)
class Ours:
    """What the ledger has in a cell, refused calls and calls on users' own keys left out."""

    calls: int = 0
    tokens: Vector = NO_TOKENS
    nano: Vector = (0,) * (len(TOKENS) + 1)
    """Cost by meter, and of other units."""
    unpriced: int = 0
    failed_calls: int = 0
    """Calls that failed and yet have tokens."""
    failed_tokens: Vector = NO_TOKENS
    loose_calls: int = 0
    """Calls whose usage the provider did not state: aborted streams, time-outs, estimates."""
    loose_tokens: Vector = NO_TOKENS
    most: Vector = NO_TOKENS
    """The most that one call of the cell used."""
    early: Vector = NO_TOKENS
    """Tokens of the first hour of the day, and of the last."""
    late: Vector = NO_TOKENS

    @property
    def usd(self) -> Decimal:
        return sum(self.nano) * NANO

    def plus(self, other: "Ours") -> "Ours":
        """Add two cells; `most` is that of the larger."""

        def both(left: Vector, right: Vector) -> Vector:
            return tuple(a + b for a, b in zip(left, right, strict=True))

        return Ours(
            self.calls + other.calls,
            both(self.tokens, other.tokens),
            both(self.nano, other.nano),
            self.unpriced + other.unpriced,
            self.failed_calls + other.failed_calls,
            both(self.failed_tokens, other.failed_tokens),
            self.loose_calls + other.loose_calls,
            both(self.loose_tokens, other.loose_tokens),
            tuple(map(max, self.most, other.most)),
            both(self.early, other.early),
            both(self.late, other.late),
        )

    def inclusive(self) -> "Ours":
        """Return the cell with all input under one meter, for bills that do not tell apart what a cache held."""

        def joined(tokens: Vector) -> Vector:
            return (tokens[0] + tokens[1] + tokens[2], 0, 0, *tokens[3:])

        return Ours(
            self.calls,
            joined(self.tokens),
            joined(self.nano),
            self.unpriced,
            self.failed_calls,
            joined(self.failed_tokens),
            self.loose_calls,
            joined(self.loose_tokens),
            joined(self.most),
            joined(self.early),
            joined(self.late),
        )


@dataclass(slots=True)
class Theirs:
    """What the bill has in a cell; None = it does not say."""

    requests: Decimal | None = None
    tokens: list[Decimal | None] = field(default_factory=lambda: [None] * len(TOKENS))
    usd: Decimal | None = None
    """The amount of all tokens of the cell."""
    lines: int = 0
    """How many amounts it is the sum of."""

    @property
    def counted(self) -> bool:
        return any(count is not None for count in self.tokens)

    def take(self, meter: str, quantity: Decimal | None, amount_usd: Decimal | None) -> None:
        """Add one line."""
        if meter == REQUESTS:
            self.requests = add(self.requests, quantity)
            return
        place = 0 if meter == PROMPT else TOKENS.index(meter) if meter in TOKENS else -1
        if place >= 0:
            self.tokens[place] = add(self.tokens[place], quantity)
        if amount_usd is not None:
            self.usd, self.lines = add(self.usd, amount_usd), self.lines + 1


@dataclass(slots=True)
class Sides:
    """A bill and the ledger in the same cells. `usage` has what counts tokens, `money` what states amounts."""

    usage: dict[Cell, Theirs]
    money: dict[Cell, Theirs]
    fees: dict[tuple[date, str], Decimal]
    """Amounts for anything but tokens, by day and line item."""
    ours: dict[Cell, Ours]
    """In the cells of `usage`."""
    counted: frozenset[date]
    """Days of which the bill counts tokens, and of which it states amounts, whether or not there are any."""
    costed: frozenset[date]
    keyed: bool
    money_keyed: bool
    modelled: bool
    money_modelled: bool

    def money_cell(self, cell: Cell) -> Cell:
        """Return the cell of `money` that a cell of `usage` lies in."""
        return Cell(cell.key if self.money_keyed else "", cell.model if self.money_modelled else "", cell.day)


def sides(
    lines: Mapping[str, Iterable[Line]], covered: Mapping[str, frozenset[date]], ours: Mapping[Cell, Ours]
) -> Sides:
    """Return both sides. `lines` by source, their models and keys named as ours, and the days that each source covers.

    A source is named ACCOUNT/SOURCE. What a usage report counts, the quantities of a cost report only repeat.
    """
    sources = {source: [line for line in found if line.day in covered[source]] for source, found in lines.items()}
    counting = _best((name for name, found in sources.items() if _counts(name, found)), costs_last=True)
    costing = _best((name for name, found in sources.items() if _costs(name, found)), costs_last=False)
    token_lines = [line for name in counting for line in sources[name] if line.meter in (*TOKENS, PROMPT, REQUESTS)]
    amounts = [line for name in costing for line in sources[name] if line.amount_usd is not None]
    paid = [line for line in amounts if line.meter != OTHER]
    keyed, modelled = _names(token_lines or paid)
    money_keyed, money_modelled = _names(paid)
    money_keyed, money_modelled = money_keyed and keyed, money_modelled and modelled
    counted = frozenset[date]().union(*(covered[name] for name in counting))
    costed = frozenset[date]().union(*(covered[name] for name in costing))
    made = Sides({}, {}, {}, {}, counted, costed, keyed, money_keyed, modelled, money_modelled)
    inclusive = any(line.meter == PROMPT for line in token_lines)
    for line in token_lines:
        cell = Cell(line.key_ref if keyed else "", line.model if modelled else "", line.day)
        made.usage.setdefault(cell, Theirs()).take(line.meter, line.quantity, None)
    for line in paid:
        cell = Cell(line.key_ref if money_keyed else "", line.model if money_modelled else "", line.day)
        made.money.setdefault(cell, Theirs()).take(ALL, None, line.amount_usd)
    for line in amounts:
        if line.meter == OTHER:
            name = (line.day, line.line_item or "other")
            made.fees[name] = EXACT.add(made.fees.get(name, ZERO), line.amount_usd or ZERO)
    for (key, model, day), one in ours.items():
        if day in counted or day in costed:
            cell = Cell(key if keyed else "", model if modelled else "", day)
            own = one.inclusive() if inclusive else one
            made.ours[cell] = made.ours[cell].plus(own) if cell in made.ours else own
    return made


def _counts(name: str, lines: Iterable[Line]) -> bool:
    """Tell whether a source counts tokens: it is made for it, or does."""
    source = name.rpartition("/")[2]
    return source in COUNTING or any(line.meter in (*TOKENS, PROMPT) and line.quantity is not None for line in lines)


def _costs(name: str, lines: Iterable[Line]) -> bool:
    source = name.rpartition("/")[2]
    return source in COSTING or any(line.amount_usd is not None for line in lines)


def _best(names: Iterable[str], *, costs_last: bool) -> list[str]:
    """Return the sources that count, for each account those of the best kind: two kinds would say the same twice.

    A CSV of one's own comes after the provider's reports; with `costs_last` cost reports come after that.
    """
    ranks: dict[str, dict[int, list[str]]] = {}
    for name in sorted(names):
        account, _, source = name.rpartition("/")
        rank = 1 if source == "csv" else 2 if costs_last and source.endswith(COSTS) else 0
        ranks.setdefault(account, {}).setdefault(rank, []).append(name)
    return [name for kinds in ranks.values() for name in kinds[min(kinds)]]


def _names(lines: Iterable[Line]) -> tuple[bool, bool]:
    """Tell whether lines name keys, and models."""
    found = list(lines)
    return any(line.key_ref for line in found), any(line.model for line in found)
