"""Board 5, Reconcile: what providers billed beside what the ledger has, by day and by line."""

from tollmeter.dashboards.grafana.model import SECONDS, USD, Board, Panel
from tollmeter.dashboards.grafana.spend import UID as SPEND
from tollmeter.dashboards.grafana.sql import SINCE, UNPRICED, UNTIL, within

UID = "tollmeter-reconcile"
_EMPTY = "no bill yet: tollmeter bills import"
_DAYS = f"day >= toDate({SINCE}) AND day < toDate({UNTIL}) + 1"
_PROVIDER = "$__conditionalAll(provider IN (${provider:singlequote}), $provider)"
_BILLED = f"""SELECT provider, source, day, sum(amount_usd) AS billed, min(is_whole) AS whole, min(is_final) AS final
    FROM provider_bills
    WHERE {_DAYS} AND {_PROVIDER}
    GROUP BY provider, source, day
    HAVING countIf(amount IS NOT NULL) > 0"""
"""What was billed, by source: two sources of one provider say the same money twice and are never added."""
_OURS = f"""SELECT provider_id AS provider, toDate(event_time) AS day, sum(ifNull(cost_nano, 0)) AS known_nano,
        countIf({UNPRICED}) AS n_unpriced, sum(ifNull(at_risk_nano, 0)) AS risk_nano
    FROM usage
    WHERE {within("event_time", f"toStartOfDay({SINCE}, 'UTC')", f"toStartOfDay({UNTIL}, 'UTC') + toIntervalDay(1)")}
        AND billing_scope != 'USER' AND status != 'BLOCKED'
        AND toDate(event_time) IN (SELECT day FROM provider_bills WHERE {_DAYS} AND {_PROVIDER})
    GROUP BY provider, day"""
"""What the ledger has of the days that a bill is of: it is asked for no other."""
_BOTH = f"""(
    {_BILLED}
) AS b
LEFT JOIN (
    {_OURS}
) AS o ON o.provider = b.provider AND o.day = b.day"""
_MONEY = """toFloat64(sum(b.billed)) AS "USD billed", sum(o.known_nano) / 1e9 AS "USD ours",
    toFloat64(sum(b.billed)) - sum(o.known_nano) / 1e9 AS "USD difference",
    sum(o.n_unpriced) AS "unpriced", sum(o.risk_nano) / 1e9 AS "USD at risk\""""

PANELS = (
    Panel(
        "table",
        "Bills and the ledger",
        "What each source of a provider's bill says for the chosen days, beside the ledger's known cost of these UTC "
        "days. Calls without a known price are not in ours: beside it stands how many, and what they may cost. "
        "`tollmeter reconcile` names the cause of each difference.",
        f"""SELECT b.provider AS provider, b.source AS source, count() AS "days", {_MONEY}
FROM {_BOTH}
GROUP BY provider, source
ORDER BY provider, source
LIMIT 100""",
        USD,
        width=24,
        height=7,
        deeper=SPEND,
        empty=_EMPTY,
    ),
    Panel(
        "series",
        "Difference by day",
        "Billed less ours, a day; days without a bill are left out. What is not in it: the panel Bills and the ledger.",
        f"""SELECT toDateTime(b.day, 'UTC') AS time, concat(b.provider, ' ', b.source) AS name,
    toFloat64(sum(b.billed)) - sum(o.known_nano) / 1e9 AS "USD"
FROM {_BOTH}
GROUP BY time, name
ORDER BY time, name
LIMIT 20000""",
        USD,
        width=24,
        deeper=SPEND,
        empty=_EMPTY,
    ),
    Panel(
        "table",
        "Days",
        "Each day of each source. A day that is not whole or not final may still change.",
        f"""SELECT b.day AS "day", b.provider AS provider, b.source AS source, {_MONEY},
    100 * (toFloat64(sum(b.billed)) - sum(o.known_nano) / 1e9) / nullIf(toFloat64(sum(b.billed)), 0) AS "percent",
    min(b.whole) AS "whole", min(b.final) AS "final"
FROM {_BOTH}
GROUP BY "day", provider, source
ORDER BY "day" DESC, provider, source
LIMIT 200""",
        USD,
        width=14,
        height=12,
        decimals=4,
        deeper=SPEND,
        columns={"provider": "provider"},
        empty=_EMPTY,
    ),
    Panel(
        "table",
        "Lines of the bills",
        "What the bills name: the dearest 100 lines by model and item. What of it is ours: `tollmeter reconcile`",
        f"""SELECT provider, source, model, line_item AS item, meter, toFloat64(sum(amount_usd)) AS "billed USD",
    toFloat64(sum(quantity)) AS "quantity"
FROM provider_bills
WHERE {_DAYS} AND {_PROVIDER}
GROUP BY provider, source, model, item, meter
ORDER BY "billed USD" DESC NULLS LAST, provider, source, model, item, meter
LIMIT 100""",
        "none",
        width=10,
        height=12,
        deeper=SPEND,
        empty=_EMPTY,
    ),
    Panel(
        "stat",
        "Newest bill",
        "How long ago the newest bill was fetched.",
        """SELECT if(count() = 0, NULL, dateDiff('second', max(fetched_at), now('UTC'))) AS "age"
FROM provider_bills
LIMIT 1""",
        SECONDS,
        width=24,
        height=4,
        warn=(172_800, 604_800),
        deeper=SPEND,
        empty=_EMPTY,
    ),
)

BOARD = Board(
    UID,
    "tollmeter: reconcile",
    "What providers billed beside what the ledger has, by day and by line.",
    "now-30d",
    PANELS,
    ("provider",),
)
