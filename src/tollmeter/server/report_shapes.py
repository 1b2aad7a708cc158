"""What reports have in common: the period that was asked for, the columns of rows by their names, the totals."""

from collections.abc import Mapping, Sequence

from tollmeter.admin.reports.questions import BY, TOTALS
from tollmeter.admin.reports.rows import DOUBTS, NAMES, REFUSED, SUBSCRIBED
from tollmeter.server.shapes import Shape, sometimes

COLUMNS: Mapping[str, Shape] = {
    **dict.fromkeys((*BY.values(), *NAMES, "model_sent", "model_used", "request_id"), str),
    "ts": str,
    "client_ip": str | None,
    **dict.fromkeys(("pt", "ot", "calls", "prompt_tokens", "output_tokens", "total_tokens"), int),
    **dict.fromkeys(("refused", "unpriced", "estimated", "corrected", "subscription_calls"), int),
    **dict.fromkeys(("est_cost", "usd_est", "cost_usd", "usd_at_risk", "usd_subscription_value"), float | None),
    "price_books": list[str],
    **dict.fromkeys(("fx_from", "fx_until"), str | None),
}
"""Every column of a report, by the name that it has in JSON."""
PERIOD: Mapping[str, Shape] = dict.fromkeys(("from", "until", "zone"), str)
TOTAL: Mapping[str, Shape] = {
    **{name: COLUMNS[name] for name in TOTALS},
    **dict.fromkeys(("as_of", "calls_kept_from"), str | None),
    "age_s": int | None,
}


def report(columns: Sequence[str], maybe: Sequence[str] = (), **more: Shape) -> Mapping[str, Shape]:
    """Return the shape of a report whose rows have these columns, and perhaps others."""
    rest = [name for name in (*maybe, *REFUSED, *NAMES, *DOUBTS, *SUBSCRIBED) if name not in columns]
    row = {name: COLUMNS[name] for name in columns} | sometimes(rest, COLUMNS)
    return {**more, **PERIOD, "rows": [row], "totals": TOTAL}
