"""Parts of the questions: the range of the board, its filters, and calls from the ledger or from its minutes.

Ranges are half-open. Grafana's own end of a day is its last millisecond: it is taken as the day's end, so that no call
of that millisecond is missing. Up to 48 hours calls are read one by one, exact to the microsecond; beyond, minutes.
"""

from collections.abc import Sequence

UNTIL = "$__toTime_ms + toIntervalMillisecond(toUnixTimestamp64Milli($__toTime_ms) % 1000 = 999)"
SINCE = "$__fromTime_ms"
SPAN_S = "dateDiff('second', $__fromTime_ms, $__toTime_ms)"
RAW_SPAN_S = 172_800
"""Longest range that is read call by call."""

FILTERS = {
    "org": "org_id",
    "provider": "provider",
    "model": "model",
    "key": "api_key_id",
    "user": "user_id",
    "feature": "operation_name",
}
"""The column that a variable filters."""
OF_MINUTES = ("org", "provider", "model", "key")
"""Filters by what minutes know, too."""
BY_MINUTE = " AND ".join(f"$__conditionalAll(1 = 0, ${name})" for name in FILTERS if name not in OF_MINUTES)
"""Whether minutes can answer: no filter is set that they do not know."""

UNPRICED = "cost_nano IS NULL AND NOT (status = 'ERROR' AND price_status = 'NO_USAGE')"
"""A call whose cost is not known; one that failed without usage costs nothing."""

USD = "if(sum(n_unpriced) > 0 AND sum(known_nano) = 0, NULL, sum(known_nano) / 1e9)"
"""Known cost of a group; NULL where nothing of it is known."""
DOUBTS = 'sum(n_unpriced) AS "unpriced", sum(risk_nano) / 1e9 AS "USD at risk"'
"""What is not in `USD`: how many calls, and what they may cost."""

ZONE = "${zone:sqlstring}"
TODAY = f"toStartOfDay(now('UTC'), {ZONE})"
MONTH = f"toDateTime(toStartOfMonth(now('UTC'), {ZONE}), {ZONE})"
NEXT_MONTH = f"toDateTime(addMonths(toStartOfMonth(now('UTC'), {ZONE}), 1), {ZONE})"


def within(column: str, since: str = SINCE, until: str = UNTIL) -> str:
    """Return the condition that a time lies in the range of the board."""
    return f"{column} >= {since} AND {column} < {until}"


def filters(names: Sequence[str] = tuple(FILTERS)) -> str:
    """Return the conditions of the variables; each of them is no condition where All is chosen."""
    return " AND ".join(f"$__conditionalAll({FILTERS[name]} IN (${{{name}:singlequote}}), ${name})" for name in names)


def spend(since: str = SINCE, until: str = UNTIL) -> str:
    """Return the subquery of calls or minutes with their money, whichever suits the range and the filters."""
    minutes = f"{SPAN_S} > {RAW_SPAN_S} AND {BY_MINUTE}"
    measures = "input_tokens, cache_read_tokens, cache_write_tokens, output_tokens"
    names = "org_id, api_key_id, provider, model"
    return f"""(
    SELECT event_time AS called_at, {names}, user_id, operation_name, 1 AS n_calls, {UNPRICED} AS n_unpriced,
        {measures}, ifNull(cost_nano, 0) AS known_nano, ifNull(at_risk_nano, 0) AS risk_nano
    FROM usage
    WHERE NOT ({minutes}) AND {within("event_time", since, until)} AND {filters()}
    UNION ALL
    SELECT toDateTime64(minute, 6, 'UTC'), {names}, '', '', calls, unpriced,
        {measures}, ifNull(cost_nano, 0), at_risk_nano
    FROM usage_minutely
    WHERE {minutes} AND {within("minute", since, until)} AND {filters(OF_MINUTES)}
)"""


def calls(since: str = SINCE, until: str = UNTIL) -> str:
    """Return the subquery of single calls, whatever the range."""
    return f"""(
    SELECT *, {UNPRICED} AS n_unpriced, ifNull(cost_nano, 0) AS known_nano, ifNull(at_risk_nano, 0) AS risk_nano
    FROM usage
    WHERE {within("event_time", since, until)} AND {filters()}
)"""


def since_then(begin: str) -> str:
    """Return calls since an instant: those before today from the minutes, where these know all filters."""
    return f"""(
    SELECT 1 AS n_calls, {UNPRICED} AS n_unpriced, ifNull(cost_nano, 0) AS known_nano,
        ifNull(at_risk_nano, 0) AS risk_nano
    FROM usage
    WHERE event_time >= if({BY_MINUTE}, greatest({begin}, {TODAY}), {begin}) AND {filters()}
    UNION ALL
    SELECT calls, unpriced, ifNull(cost_nano, 0), at_risk_nano
    FROM usage_minutely
    WHERE {BY_MINUTE} AND minute >= {begin} AND minute < {TODAY} AND {filters(OF_MINUTES)}
)"""


def by_time(name: str) -> str:
    """Return cost over time by the eight dearest names of the range, the rest as one."""
    return f"""SELECT $__timeInterval(called_at) AS time, if({name} IN (
        SELECT {name} FROM {spend()} GROUP BY {name} ORDER BY sum(known_nano) DESC, {name} LIMIT 8
    ), {name}, '(other)') AS name, {USD} AS "USD"
FROM {spend()}
GROUP BY time, name
ORDER BY time, name
LIMIT 20000"""
