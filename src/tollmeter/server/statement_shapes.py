"""What statements of closed months and comparisons with bills look like in answers."""

from tollmeter.admin.bills.told import BY
from tollmeter.admin.close import MONEY, NAMES, SUMS
from tollmeter.server.shapes import Maybe
from tollmeter.streams.rules.bills.naming import CLASSES

_SUMS = {name: int | None if name in MONEY else int for name in SUMS}
_CHANGE = {"month": str, **dict.fromkeys(NAMES, str), **_SUMS}
_ROW = {
    **dict.fromkeys(NAMES, str),
    **_SUMS,
    "price_books": list[str],
    **dict.fromkeys(("fx_first", "fx_last"), str | None),
    **dict.fromkeys(("content?", "mix?"), str | None),
}
_LINE = {
    **dict.fromkeys(("org_id", "name", "provider", "cost_centre", "currency"), str),
    **dict.fromkeys(("quantity", "unit_nano", "amount_nano"), int),
    "cost_nano": int | None,
    "fx_date": str | None,
}
_LINE_CHANGE = {
    **dict.fromkeys(("month", "org_id", "provider", "name", "currency"), str),
    "amount_nano": int,
    "cost_nano": int | None,
}
LISTED = {**dict.fromkeys(("month", "closed_at", "reason"), str), "number": int, "totals": _SUMS}
STATEMENT = {
    **LISTED,
    **dict.fromkeys(("zone", "org_id", "hash"), str),
    "part": bool,
    **dict.fromkeys(("stored_until?", "calls_kept_from?", "fx_first", "fx_last"), str | None),
    "rows": [_ROW],
    "price_books": list[str],
    "adjustments": [_CHANGE],
    "not_booked_yet": Maybe([_CHANGE]),
    "cost_lines?": [_LINE],
    "cost_line_totals?": dict.fromkeys(("lines", "cost_nano", "without_usd"), int),
    "cost_line_adjustments?": [_LINE_CHANGE],
}
COMPARISON = {
    **dict.fromkeys(("provider", "since", "until", "zone", "by"), str),
    **dict.fromkeys(("billed_nano", "ours_nano", "matched_nano", "gap_nano"), int),
    "gap_pct": float,
    "classes": [
        {
            "class": str,
            **dict.fromkeys(("differences", "more_on_bill_nano", "more_in_ledger_nano", "amount_nano"), int),
        }
    ],
    "rows": [
        {
            **dict.fromkeys((f"{name}?" for name in BY), str),
            **dict.fromkeys(("billed_nano", "ours_nano", "difference_nano"), int),
            **dict.fromkeys((f"{name}?" for name in CLASSES), int),
        }
    ],
    "steps": dict[str, dict[str, int | None]],
    "differences": [
        {
            **dict.fromkeys(("class", "cause", "day", "key", "model", "project", "item"), str),
            **dict.fromkeys(("likely_cause", "next_step"), str),
            "amount_nano": int,
            "tokens": dict[str, int],
            "calls": int | None,
            "event_ids": list[str],
        }
    ],
    "keys_recognised": dict[str, str],
    "notes": list[str],
}
