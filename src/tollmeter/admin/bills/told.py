"""A comparison as a document: classes, days, models, keys or projects, and each difference with its calls."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from decimal import Decimal
from typing import Any

from tollmeter.admin.bills.pages import midnight
from tollmeter.admin.bills.reconcile import Reconciled
from tollmeter.schemas.money import NANO_PER_USD
from tollmeter.sinks.clickhouse.client import ClickHouse
from tollmeter.sinks.clickhouse.queries import load, moment
from tollmeter.streams.rules.bills.causes import words
from tollmeter.streams.rules.bills.cells import ZERO, Cell
from tollmeter.streams.rules.bills.compare import Difference
from tollmeter.streams.rules.bills.lines import EXACT, TOKENS
from tollmeter.streams.rules.bills.naming import CLASSES, MATCHED, ROUNDING

BY = ("day", "model", "key", "project")
LARGEST, SAMPLE = 3, 5
"""Differences of each cause whose calls are named, and how many of them."""
_WHICH = {
    "failed": "failed",
    "aborted": "loose",
    "estimates_high": "loose",
    "unpriced": "unpriced",
    "earlier": "early",
    "later": "late",
}
NO_CALLS = frozenset({"unknown_key", "unmetered", "more_requests", "item", "credit"})
Row = dict[str, Any]


def nano(usd: Decimal) -> int:
    """Return an amount in nano-USD, half to even."""
    return int(EXACT.quantize(EXACT.multiply(usd, Decimal(NANO_PER_USD)), Decimal(1)))


def document(found: Reconciled, by: str, samples: Mapping[int, list[str]]) -> Row:
    """Return the whole comparison as JSON; amounts in nano-USD, theirs minus ours."""
    result = found.result
    return {
        "provider": found.asked.provider,
        "since": f"{found.asked.since}",
        "until": f"{found.asked.until}",
        "zone": "UTC",
        "billed_nano": nano(result.billed),
        "ours_nano": nano(result.ours),
        "matched_nano": nano(result.matched),
        "gap_nano": nano(gap(found)),
        "gap_pct": gap_pct(found),
        "classes": classes(found),
        "by": by,
        "rows": rows(found, by),
        "steps": steps(found),
        "differences": [
            difference(found, one) | {"event_ids": samples.get(number, [])}
            for number, one in enumerate(result.differences)
        ],
        "keys_recognised": found.guessed,
        "notes": found.notes,
    }


def gap(found: Reconciled) -> Decimal:
    """Return the sum of all differences but rounding, without their signs, in USD."""
    return sum((abs(one.usd) for one in found.result.differences if one.kind != ROUNDING), ZERO)


def gap_pct(found: Reconciled) -> float:
    """Return the gap as a share of the larger side."""
    whole = max(found.result.billed, found.result.ours)
    return float(round(100 * gap(found) / whole, 3)) if whole else 0.0


def classes(found: Reconciled) -> list[Row]:
    """Return each class: how many differences, more on the bill, more in the ledger, the net. Matched first."""
    made = []
    for kind in CLASSES:
        ours = [one.usd for one in found.result.differences if one.kind == kind]
        amount = found.result.matched if kind == MATCHED else sum(ours, ZERO)
        more = sum((usd for usd in ours if usd > 0), ZERO)
        made.append(
            {
                "class": kind,
                "differences": len(ours),
                "more_on_bill_nano": nano(more),
                "more_in_ledger_nano": nano(more - sum(ours, ZERO)),
                "amount_nano": nano(amount),
            }
        )
    return made


def rows(found: Reconciled, by: str) -> list[Row]:
    """Return billed, ours and the classes for each day, model, key or project."""

    def name(cell: Cell) -> str:
        return found.projects.get(cell.key, "") if by == "project" else str(getattr(cell, by))

    sums: dict[str, dict[str, Decimal]] = defaultdict(lambda: defaultdict(lambda: ZERO))
    days = found.both.costed or found.both.counted
    for cell, own in found.both.ours.items():
        if cell.day in days:
            sums[name(cell)]["ours"] += own.usd
    for one in found.result.differences:
        sums[name(one.cell)][one.kind] += one.usd
    made = []
    for key, amounts in sums.items():
        ours = amounts.pop("ours", ZERO)
        billed = ours + sum(amounts.values(), ZERO)
        made.append(
            {by: key, "billed_nano": nano(billed), "ours_nano": nano(ours), "difference_nano": nano(billed - ours)}
            | {kind: nano(amounts[kind]) for kind in CLASSES if amounts.get(kind)}
        )
    return sorted(made, key=_by_day if by == "day" else _by_difference)


def _by_day(row: Row) -> str:
    return str(row["day"])


def _by_difference(row: Row) -> int:
    return -abs(int(row["difference_nano"]))


def steps(found: Reconciled) -> Row:
    """Return the comparison step by step: requests, tokens by meter, their tokens at our rate, money."""
    both = found.both
    requests = [one.requests for one in both.usage.values() if one.requests is not None]
    counted = [own for cell, own in both.ours.items() if cell.day in both.counted]
    made: Row = {
        "requests": {
            "billed": int(sum(requests, ZERO)) if requests else None,
            "ours": sum(own.calls for own in counted),
        }
    }
    for place, meter in enumerate(TOKENS):
        theirs = [count for one in both.usage.values() if (count := one.tokens[place]) is not None]
        made[meter] = {
            "billed": int(sum(theirs, ZERO)) if theirs else None,
            "ours": sum(own.tokens[place] for own in counted),
        }
    return made


def difference(found: Reconciled, one: Difference) -> Row:
    """Return one difference."""
    said = words(one)
    return {
        "class": one.kind,
        "cause": one.cause,
        "amount_nano": nano(one.usd),
        "day": f"{one.cell.day}",
        "key": one.cell.key,
        "model": one.cell.model,
        "project": found.projects.get(one.cell.key, ""),
        "item": one.item,
        "tokens": {meter: int(count) for meter, count in zip(TOKENS, one.tokens, strict=True) if count},
        "calls": one.calls,
        "likely_cause": said.cause,
        "next_step": said.step,
    }


def sampled(client: ClickHouse, found: Reconciled, keys: Mapping[str, str]) -> dict[int, list[str]]:
    """Return event ids of calls behind the largest differences of each cause, by number. Raises `Unavailable`."""
    made: dict[int, list[str]] = {}
    left: dict[str, int] = defaultdict(lambda: LARGEST)
    for number, one in enumerate(found.result.differences):
        left[one.cause] -= 1
        if one.cause in NO_CALLS or one.kind == ROUNDING or left[one.cause] < 0:
            continue
        begin = midnight(one.cell.day)
        asked = {
            "provider": found.asked.provider,
            "since": moment(begin),
            "until": moment(begin + timedelta(days=1)),
            "keys": _own(one.cell.key, keys) if found.both.keyed else [],
            "model": one.cell.model,
            "which": _WHICH.get(one.cause, ""),
            "top": SAMPLE,
        }
        made[number] = [row["event_id"] for row in client.query(load("bill_calls"), asked)]
    return made


def _own(key: str, keys: Mapping[str, str]) -> list[str]:
    """Return our key ids that stand under a name."""
    return sorted({key, *(own for ref, own in keys.items() if ref == key)})


def shown(rows_: Sequence[Row], text: Callable[[int], str]) -> list[Row]:
    """Return rows for people: `..._nano` as USD under the name without its unit."""
    return [
        {
            name.removesuffix("_nano"): text(value) if isinstance(value, int) and name != "differences" else value
            for name, value in row.items()
        }
        for row in rows_
    ]
