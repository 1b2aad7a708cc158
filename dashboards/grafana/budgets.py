"""Board 3, Budgets: every limit with what is used of it and where it ends; thresholds that were crossed; refusals."""

from tollmeter.dashboards.grafana.model import COUNT, PERCENT, USD, Board, Panel
from tollmeter.dashboards.grafana.spend import BUDGETS, LEAK, NOT_IN_IT
from tollmeter.dashboards.grafana.spend import UID as SPEND
from tollmeter.dashboards.grafana.sql import SINCE, UNTIL, calls, within

_ORG = "$__conditionalAll(org_id IN (${org:singlequote}), $org)"
_MONEY = "unit IN ('USD', 'EUR', 'RUB')"
_WHO = "concat(org_id, if(scope = 'org', '', concat(' ', scope, ' ', name)))"
_PASSED = "dateDiff('second', starts, now())"
_LENGTH = "dateDiff('second', starts, ends)"
_FORECAST = (
    f"if(startsWith(period, 'rolling'), used, if({_PASSED} * 100 < {_LENGTH} * 2, NULL, used * {_LENGTH} / {_PASSED}))"
)
_IN_UNITS = f"if({_MONEY}, 1e9, 1)"

PANELS = (
    Panel(
        "bars",
        "Used",
        "Share of each limit that is used in its current period, the fullest 30. What may still come of calls without "
        "a known price counts. A limit that nobody has touched is 0; one for each member stands for everybody who has "
        "used some of it.",
        f"""SELECT concat({_WHO}, ' ', period, ' ', unit) AS budget, 100 * used / amount AS "used"
FROM budget_use
WHERE {_ORG}
ORDER BY "used" DESC, budget
LIMIT 30""",
        PERCENT,
        width=12,
        height=12,
        deeper=SPEND,
        empty="no budget: tollmeter policy set",
    ),
    Panel(
        "table",
        "Limits",
        "Every limit, in its own unit: a currency, tokens or requests; of each member the one that binds him. The "
        "forecast is the mean pace so far, "
        "unknown before 2 % of the period. At risk is the part of it that is an estimate, in USD. "
        "`tollmeter policy explain` says which limit binds a user.",
        f"""SELECT org_id AS organisation, scope, name, applies, period, timezone, unit,
    amount / {_IN_UNITS} AS "limit", used / {_IN_UNITS} AS "used of it", 100 * used / amount AS "percent",
    {_FORECAST} / {_IN_UNITS} AS "forecast", at_risk_nano / 1e9 AS "at risk", ends AS "ends"
FROM budget_use
WHERE {_ORG}
ORDER BY "percent" DESC, organisation, scope, name, period, unit
LIMIT 200""",
        "none",
        width=12,
        height=12,
        deeper=SPEND,
        columns={"organisation": "org"},
        empty="no budget: tollmeter policy set",
    ),
    Panel(
        "stat",
        "Over their limit",
        "Limits that are used up in their current period.",
        f"""SELECT countIf(used >= amount) AS "spent",
    countIf(used < amount AND used * 100 >= amount * warn_threshold_pct) AS "almost spent", count() AS "limits"
FROM budget_use
WHERE {_ORG}
LIMIT 1""",
        COUNT,
        width=12,
        height=5,
        deeper=LEAK,
    ),
    Panel(
        "stat",
        "Refused",
        "Calls of the range that a limit or a block refused before they were made: they cost nothing.",
        f"""SELECT countIf(status = 'BLOCKED') AS "refused", uniqExactIf(user_id, status = 'BLOCKED') AS "users",
    uniqExactIf(api_key_id, status = 'BLOCKED') AS "keys"
FROM {calls(f"greatest({SINCE}, {UNTIL} - toIntervalDay(2))")}
LIMIT 1""",
        COUNT,
        width=12,
        height=5,
        deeper=LEAK,
    ),
    Panel(
        "table",
        "Thresholds that were crossed",
        "Edges of budgets in the range, each once a period, with what became of the alert.",
        f"""SELECT received_at AS "at", severity, org_id AS organisation, scope, name, period, text, state, told
FROM alert_list
WHERE kind IN ('budget', 'remaining', 'late_spend') AND {within("received_at")} AND {_ORG}
ORDER BY received_at DESC, id
LIMIT 100""",
        "none",
        width=24,
        height=9,
        deeper=LEAK,
        empty="no threshold was crossed",
    ),
    Panel(
        "series",
        "Refusals by cause",
        "Calls that were refused before they were made, by the reason that the guard gave.",
        f"""SELECT $__timeInterval(event_time) AS time, if(error_type = '', 'not said', error_type) AS name,
    count() AS "refused"
FROM {calls(f"greatest({SINCE}, {UNTIL} - toIntervalDay(2))")}
WHERE status = 'BLOCKED'
GROUP BY time, name
ORDER BY time, name
LIMIT 20000""",
        COUNT,
        width=12,
        height=9,
        deeper=LEAK,
        empty="nothing was refused",
    ),
    Panel(
        "table",
        "Users this month",
        "The dearest 30 users of this UTC month by the live totals, which alerts go by; calls on their own keys apart. "
        f"{NOT_IN_IT}",
        f"""SELECT org_id AS organisation, name AS user,
    if(unpriced > 0 AND cost_nano = 0, NULL, cost_nano / 1e9) AS "USD",
    calls AS "calls", byok_cost_nano / 1e9 AS "USD on own keys", unpriced AS "unpriced",
    at_risk_nano / 1e9 AS "USD at risk"
FROM usage_live
WHERE level = 'month' AND scope = 'user' AND bucket = toDateTime(toStartOfMonth(now('UTC')), 'UTC') AND name != ''
    AND {_ORG}
ORDER BY cost_nano DESC, organisation, user
LIMIT 30""",
        USD,
        width=12,
        height=9,
        deeper=SPEND,
        columns={"user": "user", "organisation": "org"},
    ),
    Panel(
        "table",
        "Limits of each member",
        "Limits that each member of an organisation or group has for himself. What one user has used of his says "
        "`tollmeter policy explain --user NAME`",
        f"""SELECT org_id AS organisation, scope, name, currency, daily_limit_micro / 1e6 AS "a day",
    monthly_limit_micro / 1e6 AS "a month", length(limits) AS "others", timezone
FROM policies
WHERE applies = 'each_member' AND {_ORG}
ORDER BY organisation, scope, name
LIMIT 100""",
        "none",
        width=24,
        height=7,
        deeper=SPEND,
        empty="no limit for each member",
    ),
)

BOARD = Board(
    BUDGETS,
    "tollmeter: budgets",
    "Every limit with what is used of it and where it ends; thresholds that were crossed; refusals.",
    "now-24h",
    PANELS,
    ("org", "provider", "model", "key", "user", "feature"),
)
