"""A month's bill beside the ledger: both sides fetched, named alike, compared; what could not be compared is said."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

from tollmeter.admin.bills import anthropic, store
from tollmeter.admin.bills.pages import midnight
from tollmeter.admin.kept import kept_from
from tollmeter.schemas.event import micros
from tollmeter.schemas.money import PICO_PER_USD
from tollmeter.sinks.clickhouse.client import ClickHouse
from tollmeter.sinks.clickhouse.queries import load, moment
from tollmeter.streams.price.book.book import PriceBook
from tollmeter.streams.rules.bills.cells import Cell, Ours, Sides, sides
from tollmeter.streams.rules.bills.compare import Compared, compare
from tollmeter.streams.rules.bills.lines import TOKENS, BillError, Line
from tollmeter.streams.rules.bills.names import key_names, model_names, renamed
from tollmeter.streams.rules.bills.naming import Question
from tollmeter.streams.rules.pricing.model_names import Names
from tollmeter.streams.rules.pricing.price_one import band_at
from tollmeter.streams.rules.pricing.rates import CACHE_READ, CACHE_WRITE, INPUT, OUTPUT

OPEN = timedelta(hours=48)
"""Providers add to a day for so long after its end."""
_UNITS = dict(zip(TOKENS, (INPUT, CACHE_READ, CACHE_WRITE, OUTPUT), strict=True))


@dataclass(frozen=True)
class Asked:
    """What to compare: whole days of UTC, [since, until). `keys`: the provider's name of a key to ours."""

    provider: str
    since: date
    until: date
    account: str = ""
    keys: Mapping[str, str] = field(default_factory=dict)
    fetched_at: datetime | None = None


@dataclass
class Reconciled:
    """The comparison, and what stands beside it."""

    asked: Asked
    result: Compared
    both: Sides
    notes: list[str]
    projects: dict[str, str]
    """The project of each key, where the bill names one alone."""
    open_from: date
    guessed: dict[str, str]
    """Keys that were recognised by their use: theirs to ours."""


def reconcile(client: ClickHouse, book: PriceBook, asked: Asked, now: datetime) -> Reconciled:
    """Compare. Raises `BillError` when there is no bill, `Unavailable` when the ledger does not answer."""
    found, heads = store.lines_of(client, asked.provider, asked.account, asked.since, asked.until)
    if not heads:
        raise BillError(
            f"no bill of {asked.provider} from {asked.since} to {asked.until - timedelta(days=1)} is imported: "
            "'tollmeter bills import FILE' takes one, 'tollmeter bills list' shows what is there"
        )
    _one_currency(found)
    kept = kept_from(client, now)
    covered = {name: frozenset(day for day in days if _is_kept(day, kept)) for name, days in _covered(heads).items()}
    ours = ours_of(client, asked.provider, asked.since, asked.until)
    lines = [line for one in found.values() for line in one]
    models = model_names(lines, {cell.model for cell in ours}, lambda name: book_name(book, asked.provider, name))
    alike = renamed(lines, models, {})
    keys, guessed = key_names(alike, ours, {**stated_keys(client, asked.provider), **asked.keys})
    both = sides({name: renamed(one, models, keys) for name, one in found.items()}, covered, ours)
    fetched = asked.fetched_at or max(head["fetched_at"] for head in heads)
    open_from = (fetched - OPEN).astimezone(UTC).date()
    if all(head["is_final"] and head["source"] == "aws.cur" for head in heads):
        open_from = asked.until
    question = Question(
        open_from,
        frozenset({cell.key for cell in ours} | set(keys.values())),
        lambda model, meter, day: list_rate(book, asked.provider, model, meter, day),
        _unit(line.amount for line in lines if line.amount is not None),
    )
    result = compare(both, question)
    notes = _notes(asked, heads, both, result, open_from)
    if kept and not _is_kept(asked.since, kept):
        notes.append(f"days before {kept.date()} are not compared: calls of that age have been deleted")
    projects = _projects(renamed(lines, models, keys))
    return Reconciled(asked, result, both, notes, projects, open_from, {ref: keys[ref] for ref in guessed})


def stated_keys(client: ClickHouse, provider: str) -> dict[str, str]:
    """Return which key of ours each of a provider's names of keys is, as `tollmeter bills key` was told."""
    return {row["ref"]: row["api_key_id"] for row in client.query(load("bill_keys"), {"provider": provider})}


def ours_of(client: ClickHouse, provider: str, since: date, until: date) -> dict[Cell, Ours]:
    """Return the ledger's side by key, model and day."""
    asked = {"provider": provider, "since": moment(midnight(since)), "until": moment(midnight(until))}
    made = {}
    for row in client.query(load("bill_ours"), asked):
        nano = [int(value) for value in row["nano"]]
        nano[-1] = int(row["total_nano"]) - sum(nano[:-1])  # whatever the cost is, it is whole
        made[Cell(row["key"], row["model"], row["day"])] = Ours(
            row["calls"],
            _ints(row["tokens"]),
            tuple(nano),
            row["unpriced"],
            row["failed_calls"],
            _ints(row["failed_tokens"]),
            row["loose_calls"],
            _ints(row["loose_tokens"]),
            _ints(row["most"]),
            _ints(row["early_tokens"]),
            _ints(row["late_tokens"]),
        )
    return made


def _ints(values: Iterable[int]) -> tuple[int, ...]:
    return tuple(int(value) for value in values)


def book_name(book: PriceBook, provider: str, name: str) -> str:
    """Return the model id by which the ledger knows a name of the bill."""
    return book.planner.identity(_asked(provider, name))[1]


def list_rate(book: PriceBook, provider: str, model: str, meter: str, day: date) -> Decimal | None:
    """Return the standard rate in USD per token at noon of a day; None where the book has none."""
    bands = book.planner.plan(_asked(provider, model)).bands
    band = band_at(bands, micros(midnight(day) + timedelta(hours=12)), (1, 0, 0, 0, 0, 0)) if bands else None
    pico = None if band is None else band.prices.get(_UNITS[meter])
    return None if pico is None else Decimal(pico) / PICO_PER_USD


def _asked(provider: str, model: str) -> Names:
    return Names(provider, model, "", "", "", "", "chat", "", "")


def _one_currency(found: Mapping[str, Sequence[Line]]) -> None:
    for name, lines in found.items():
        if any(line.amount is not None and line.amount_usd is None for line in lines):
            raise BillError(f"{name}: amounts whose value in USD is not known: import the bill again with their rates")


def _covered(heads: Iterable[dict[str, Any]]) -> dict[str, set[date]]:
    """Return the whole days of each source."""
    covered: dict[str, set[date]] = defaultdict(set)
    for head in heads:
        covered[f"{head['account']}/{head['source']}"] |= {head["day"]} if head["is_whole"] else set()
    return covered


def _is_kept(day: date, kept: datetime | None) -> bool:
    return kept is None or kept <= midnight(day)


def _unit(amounts: Iterable[Decimal]) -> Decimal:
    """Return the smallest step of amounts: that of the one with the most decimals."""
    exponents = [amount.normalize().as_tuple().exponent for amount in amounts]
    finest = min((exponent for exponent in exponents if isinstance(exponent, int)), default=0)
    return Decimal(1).scaleb(min(finest, 0)) if finest < 0 else Decimal(1)


def _projects(lines: Iterable[Line]) -> dict[str, str]:
    found: dict[str, set[str]] = defaultdict(set)
    for line in lines:
        if line.key_ref and line.project:
            found[line.key_ref].add(line.project)
    return {key: names.pop() for key, names in found.items() if len(names) == 1}


def _notes(asked: Asked, heads: Sequence[dict[str, Any]], both: Sides, result: Compared, open_from: date) -> list[str]:
    """Say what was not compared, and what the totals leave out."""
    notes = []
    compared = both.costed or both.counted
    every = {asked.since + timedelta(days=number) for number in range((asked.until - asked.since).days)}
    if lacking := sorted(every - compared):
        notes.append(f"{len(compared)} of {len(every)} days are billed: {_spans(lacking)} not compared")
    if parts := sorted({head["day"] for head in heads if not head["is_whole"]} - compared):
        notes.append(f"of {_spans(parts)} the bill has only a part of the day")
    if not both.costed:
        notes.append("the bill counts tokens and states no amounts: valued at our rates; import the cost report, too")
    elif not both.counted:
        notes.append("the bill states amounts and counts no tokens: import the usage report to tell price from use")
    elif result.uncosted_days:
        notes.append(f"{result.uncosted_days} days with token counts have no amounts yet")
    if any(day >= open_from for day in compared):
        notes.append(f"from {open_from} on the bill was not final when it was fetched")
    if asked.provider == anthropic.PROVIDER:
        notes.append(anthropic.NOTE)
    return notes


def _spans(days: Sequence[date]) -> str:
    """Return days as ranges: "2026-11-16 to 2026-11-30"."""
    spans: list[list[date]] = []
    for day in days:
        if spans and day - spans[-1][-1] == timedelta(days=1):
            spans[-1].append(day)
        else:
            spans.append([day])
    return ", ".join(f"{span[0]} to {span[-1]}" if len(span) > 1 else f"{span[0]}" for span in spans)
