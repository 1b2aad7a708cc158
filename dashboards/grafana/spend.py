"""Board 1, Spend: what was spent, by whom and on what, where it goes by the end of the month, and what is not in it."""

from tollmeter.dashboards.grafana.model import PERCENT, SECONDS, TOKENS, USD, Board, Panel
from tollmeter.dashboards.grafana.sql import (
    DOUBTS,
    MONTH,
    NEXT_MONTH,
    SINCE,
    SPAN_S,
    TODAY,
    UNTIL,
    ZONE,
    by_time,
    calls,
    since_then,
    spend,
)
from tollmeter.dashboards.grafana.sql import USD as SPENT

UID = "tollmeter-spend"
LEAK, BUDGETS = "tollmeter-leak", "tollmeter-budgets"
NOT_IN_IT = "Calls without a known price are not in it: beside it stands how many, and what they may cost."
MOVERS = f"""SELECT provider, model, api_key_id AS key,
    if(sum(now_ * n_unpriced) > 0 AND sum(now_ * known_nano) = 0, NULL, sum(now_ * known_nano) / 1e9) AS "USD",
    sum((1 - now_) * known_nano) / 1e9 AS "USD before", sum((2 * now_ - 1) * known_nano) / 1e9 AS "USD more",
    sum(now_ * n_unpriced) AS "unpriced", sum(now_ * risk_nano) / 1e9 AS "USD at risk"
FROM (
    SELECT *, toInt64(1) AS now_ FROM {spend()}
    UNION ALL
    SELECT *, toInt64(0) AS now_ FROM {spend(f"{SINCE} - toIntervalSecond({SPAN_S})", SINCE)}
)
GROUP BY provider, model, key
ORDER BY abs(sum((2 * now_ - 1) * known_nano)) DESC, provider, model, key
LIMIT 20"""

_DAYS = ",\n    ".join(
    f'sumIf(known_nano, toDayOfWeek(called_at, 0, {ZONE}) = {number}) / 1e9 AS "{day}"'
    for number, day in enumerate(("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"), 1)
)
WEEK = f"""SELECT toHour(called_at, {ZONE}) AS "hour", {_DAYS},
    {DOUBTS}
FROM {spend()}
GROUP BY "hour"
ORDER BY "hour"
LIMIT 24"""

PANELS = (
    Panel(
        "stat",
        "Today",
        f"Known cost since midnight in the zone chosen above. {NOT_IN_IT}",
        f'SELECT {SPENT} AS "USD today", {DOUBTS} FROM {since_then(TODAY)} LIMIT 1',
        USD,
        width=6,
        height=5,
        deeper=LEAK,
    ),
    Panel(
        "stat",
        "This month",
        f"Known cost since the first of the month in the zone chosen above. {NOT_IN_IT}",
        f'SELECT {SPENT} AS "USD this month", {DOUBTS} FROM {since_then(MONTH)} LIMIT 1',
        USD,
        width=6,
        height=5,
        deeper=BUDGETS,
    ),
    Panel(
        "stat",
        "Forecast for the month",
        "Where the month ends at its mean pace so far, known cost alone; unknown before 2 % of it has passed. "
        f"{NOT_IN_IT}",
        f"""SELECT
    if(dateDiff('second', {MONTH}, now('UTC')) * 100 < dateDiff('second', {MONTH}, {NEXT_MONTH}) * 2, NULL,
        {SPENT} * dateDiff('second', {MONTH}, {NEXT_MONTH}) / dateDiff('second', {MONTH}, now('UTC'))
    ) AS "USD at its end",
    {DOUBTS}
FROM {since_then(MONTH)}
LIMIT 1""",
        USD,
        width=6,
        height=5,
        deeper=BUDGETS,
        empty="too early",
    ),
    Panel(
        "stat",
        "Newest call",
        "How long ago the newest call of the ledger was received. Beyond a minute the other figures are behind.",
        "SELECT if(count() = 0, NULL, dateDiff('millisecond', max(received_at), now64(3, 'UTC')) / 1000) AS \"age\"\n"
        "FROM usage\nWHERE event_time >= now() - INTERVAL 1 DAY\nLIMIT 1",
        SECONDS,
        width=6,
        height=5,
        warn=(60, 600),
        deeper="tollmeter-pipeline",
        empty="no call for a day",
    ),
    Panel(
        "stat",
        "In the range",
        f"Known cost, calls and tokens of the chosen time. {NOT_IN_IT}",
        f'SELECT {SPENT} AS "USD", sum(n_calls) AS "calls", sum(input_tokens + output_tokens) AS "tokens", {DOUBTS}\n'
        f"FROM {spend()}\nLIMIT 1",
        USD,
        width=12,
        height=5,
        deeper=LEAK,
    ),
    Panel(
        "stat",
        "Estimated",
        "Part of the cost that rests on estimated counts, because the answer carried none.",
        f"""SELECT sumIf(known_nano, usage_source = 'ESTIMATED') / 1e9 AS "USD estimated",
    countIf(usage_source = 'ESTIMATED') AS "calls", {DOUBTS}
FROM {calls(f"greatest({SINCE}, {UNTIL} - toIntervalDay(2))")}
LIMIT 1""",
        USD,
        width=12,
        height=5,
        deeper=LEAK,
    ),
    Panel(
        "series",
        "Cost by model",
        "Known cost over time: the eight dearest models, all others together. What is not in it: the panel At risk.",
        by_time("model"),
        USD,
        width=12,
        height=9,
        deeper=LEAK,
    ),
    Panel(
        "series",
        "Cost by provider",
        "Known cost over time by provider. What is not in it: the panel At risk.",
        by_time("provider"),
        USD,
        width=12,
        height=9,
        deeper=LEAK,
    ),
    Panel(
        "series",
        "At risk",
        "What the calls without a known price may cost; none of it is in the other panels.",
        f"""SELECT $__timeInterval(called_at) AS time, {DOUBTS}
FROM {spend()}
GROUP BY time
ORDER BY time
LIMIT 20000""",
        USD,
        width=12,
        deeper=LEAK,
    ),
    Panel(
        "series",
        "Tokens",
        "Tokens over time: input that no cache served, cached input, output with its reasoning.",
        f"""SELECT $__timeInterval(called_at) AS time,
    sum(input_tokens - cache_read_tokens - cache_write_tokens) AS "fresh input",
    sum(cache_read_tokens) AS "cached input", sum(cache_write_tokens) AS "written to cache",
    sum(output_tokens) AS "output"
FROM {spend()}
GROUP BY time
ORDER BY time
LIMIT 20000""",
        TOKENS,
        width=12,
        deeper=LEAK,
    ),
    Panel(
        "table",
        "Model and key",
        f"The dearest 50 pairs of the range. {NOT_IN_IT}",
        f"""SELECT provider, model, api_key_id AS key, {SPENT} AS "USD", sum(n_calls) AS "calls",
    sum(input_tokens) AS "input", sum(output_tokens) AS "output", {DOUBTS}
FROM {spend()}
GROUP BY provider, model, key
ORDER BY sum(known_nano) DESC, provider, model, key
LIMIT 50""",
        USD,
        width=24,
        height=10,
        decimals=4,
        deeper=LEAK,
        columns={"model": "model", "key": "key", "provider": "provider"},
    ),
    Panel(
        "bars",
        "Organisations",
        f"Known cost by organisation, the dearest 20. {NOT_IN_IT}",
        f'SELECT org_id AS organisation, {SPENT} AS "USD", {DOUBTS}\nFROM {spend()}\n'
        "GROUP BY organisation\nORDER BY sum(known_nano) DESC, organisation\nLIMIT 20",
        USD,
        width=12,
        height=9,
        deeper=BUDGETS,
    ),
    Panel(
        "table",
        "Movers",
        f"Pairs of model and key whose cost changed most against the same length of time before. {NOT_IN_IT}",
        MOVERS,
        USD,
        width=12,
        height=9,
        decimals=4,
        deeper=LEAK,
        columns={"model": "model", "key": "key"},
    ),
    Panel(
        "table",
        "Users",
        f"The dearest 20 users of the last two days of the range. {NOT_IN_IT}",
        f"""SELECT org_id AS organisation, user_id AS user, {SPENT} AS "USD", count() AS "calls", {DOUBTS}
FROM {calls(f"greatest({SINCE}, {UNTIL} - toIntervalDay(2))")}
GROUP BY organisation, user
ORDER BY sum(known_nano) DESC, organisation, user
LIMIT 20""",
        USD,
        width=12,
        height=9,
        decimals=4,
        deeper=LEAK,
        columns={"user": "user", "organisation": "org"},
    ),
    Panel(
        "table",
        "Features",
        f"The dearest 20 operations (the event's field feature) of the last two days of the range. {NOT_IN_IT}",
        f"""SELECT operation_name AS feature, {SPENT} AS "USD", count() AS "calls",
    round({SPENT} / count(), 6) AS "USD a call", {DOUBTS}
FROM {calls(f"greatest({SINCE}, {UNTIL} - toIntervalDay(2))")}
GROUP BY feature
ORDER BY sum(known_nano) DESC, feature
LIMIT 20""",
        USD,
        width=12,
        height=9,
        decimals=4,
        deeper=LEAK,
        columns={"feature": "feature"},
    ),
    Panel(
        "table",
        "Hours of the week",
        f"Known cost by hour of the day and weekday, in the zone chosen above. {NOT_IN_IT}",
        WEEK,
        USD,
        width=12,
        height=14,
        deeper=LEAK,
    ),
    Panel(
        "stat",
        "Served by the cache",
        "Share of input that was read from a provider's cache.",
        f"""SELECT 100 * sum(cache_read_tokens) / nullIf(sum(input_tokens), 0) AS "cached"
FROM {spend()}
LIMIT 1""",
        PERCENT,
        width=12,
        height=5,
        deeper=LEAK,
    ),
)

BOARD = Board(
    UID,
    "tollmeter: spend",
    "What was spent, by whom and on what, where it goes by the end of the month, and what is not in it.",
    "now-24h",
    PANELS,
    ("org", "provider", "model", "key", "user", "feature"),
)
