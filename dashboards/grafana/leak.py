"""Board 2, Leak: which model and key, which calls, from where; what is new; what looks like a loop."""

from tollmeter.dashboards.grafana.model import PERCENT, TOKENS, USD, Board, Panel
from tollmeter.dashboards.grafana.spend import LEAK, NOT_IN_IT
from tollmeter.dashboards.grafana.spend import UID as SPEND
from tollmeter.dashboards.grafana.sql import DOUBTS, SINCE, UNTIL, by_time, calls, filters, spend
from tollmeter.dashboards.grafana.sql import USD as SPENT

PIPELINE = "tollmeter-pipeline"
TWO_DAYS = f"greatest({SINCE}, {UNTIL} - toIntervalDay(2))"
"""Single calls are read of the last two days of the range at most."""
A_MONTH_BEFORE = f"{SINCE} - toIntervalDay(30)"
_SINGLE = calls(TWO_DAYS)


def new_names(name: str) -> str:
    """Return names of the range that the 30 days before it did not have, the dearest first."""
    return f"""SELECT {name} AS "name", min(called_at) AS "first seen", {SPENT} AS "USD", sum(n_calls) AS "calls",
    {DOUBTS}
FROM {spend()}
WHERE {name} != '' AND {name} NOT IN (
    SELECT {name}
    FROM usage_minutely
    WHERE minute >= {A_MONTH_BEFORE} AND minute < toStartOfMinute({SINCE}) AND {filters(("org",))}
)
GROUP BY "name"
ORDER BY sum(known_nano) DESC, "name"
LIMIT 20"""


PANELS = (
    Panel(
        "table",
        "Dearest pairs of model and key",
        f"Who burns the money: model and key, dearest first, in USD with four decimals. {NOT_IN_IT}",
        f"""SELECT provider, model, api_key_id AS key, {SPENT} AS "USD", sum(n_calls) AS "calls",
    sum(input_tokens) AS "input", sum(output_tokens) AS "output", {DOUBTS}
FROM {spend()}
GROUP BY provider, model, key
ORDER BY sum(known_nano) DESC, provider, model, key
LIMIT 100""",
        USD,
        width=16,
        height=10,
        decimals=4,
        deeper=LEAK,
        columns={"model": "model", "key": "key"},
    ),
    Panel(
        "table",
        "Open findings",
        "What the rules found and nobody has closed yet; budgets have a board of their own.",
        f"""SELECT received_at AS "at", severity, kind, org_id AS organisation, name, text
FROM alert_list
WHERE state != 'resolved' AND kind NOT IN ('budget', 'remaining', 'late_spend')
    AND received_at >= {UNTIL} - toIntervalDay(7)
    AND $__conditionalAll(org_id IN (${{org:singlequote}}), $org)
ORDER BY received_at DESC, id
LIMIT 50""",
        "none",
        width=8,
        height=10,
        deeper=PIPELINE,
        empty="nothing was found",
    ),
    Panel(
        "table",
        "The 20 dearest calls",
        "Of the last two days of the range: who, what, from where, what it cost and under which id it is found. "
        "`tollmeter report find ID` explains one.",
        f"""SELECT event_time AS "at", org_id AS organisation, user_id AS user, api_key_id AS key, client_ip AS address,
    provider, model, operation_name AS feature, input_tokens AS "input", output_tokens AS "output",
    cost_nano / 1e9 AS "USD", price_status AS "price", n_unpriced AS "unpriced", risk_nano / 1e9 AS "USD at risk",
    request_id AS "id"
FROM {_SINGLE}
ORDER BY cost_nano DESC NULLS LAST, event_time DESC, event_id
LIMIT 20""",
        USD,
        width=24,
        height=10,
        decimals=4,
        deeper=LEAK,
        columns={"model": "model", "key": "key", "user": "user"},
        empty="no call in the last two days of the range",
    ),
    Panel(
        "series",
        "Cost by key",
        "Known cost over time: the eight dearest keys, all others together. What is not in it: the board Spend.",
        by_time("api_key_id"),
        USD,
        height=9,
        deeper=LEAK,
    ),
    Panel(
        "table",
        "Addresses",
        "The dearest 30 addresses of the last two days of the range, and how many keys and users call from each. "
        f"{NOT_IN_IT}",
        f"""SELECT client_ip AS address, {SPENT} AS "USD", count() AS "calls", countIf(status = 'BLOCKED') AS "refused",
    uniqExact(api_key_id) AS "keys", uniqExact(user_id) AS "users", {DOUBTS}
FROM {_SINGLE}
WHERE client_ip != ''
GROUP BY address
ORDER BY sum(known_nano) DESC, address
LIMIT 30""",
        USD,
        height=9,
        decimals=4,
        deeper=LEAK,
    ),
    Panel(
        "table",
        "Input without output",
        "Keys that take in much and give hardly any out: a loop that ingests, or answers cut short.",
        f"""SELECT api_key_id AS key, sum(input_tokens) AS "input", sum(output_tokens) AS "output",
    sum(input_tokens) / nullIf(sum(output_tokens), 0) AS "input for one output", {SPENT} AS "USD", {DOUBTS}
FROM {spend()}
GROUP BY key
HAVING sum(input_tokens) >= 100000
ORDER BY "input for one output" DESC NULLS FIRST, key
LIMIT 20""",
        TOKENS,
        height=9,
        deeper=LEAK,
        columns={"key": "key"},
    ),
    Panel(
        "series",
        "Errors and refusals",
        "Share of calls that failed, and of calls that a limit refused.",
        f"""SELECT $__timeInterval(event_time) AS time, 100 * countIf(status = 'ERROR') / count() AS "share failed",
    100 * countIf(status = 'BLOCKED') / count() AS "share refused"
FROM {_SINGLE}
GROUP BY time
ORDER BY time
LIMIT 20000""",
        PERCENT,
        height=9,
        deeper=PIPELINE,
    ),
    Panel(
        "table",
        "New keys",
        f"Keys of the range that the 30 days before did not have. {NOT_IN_IT}",
        new_names("api_key_id"),
        USD,
        height=8,
        decimals=4,
        deeper=SPEND,
        empty="no new key",
    ),
    Panel(
        "table",
        "New models",
        f"Models of the range that the 30 days before did not have. {NOT_IN_IT}",
        new_names("model"),
        USD,
        height=8,
        decimals=4,
        deeper=SPEND,
        empty="no new model",
    ),
    Panel(
        "table",
        "New addresses",
        f"Addresses of the last day of the range that the seven days before it did not have. {NOT_IN_IT}",
        f"""SELECT client_ip AS address, min(event_time) AS "first seen", {SPENT} AS "USD", count() AS "calls", {DOUBTS}
FROM {calls(f"{UNTIL} - toIntervalDay(1)")}
WHERE client_ip != '' AND client_ip NOT IN (
    SELECT client_ip
    FROM {calls(f"{UNTIL} - toIntervalDay(8)", f"{UNTIL} - toIntervalDay(1)")}
)
GROUP BY address
ORDER BY sum(known_nano) DESC, address
LIMIT 20""",
        USD,
        height=8,
        decimals=4,
        deeper=LEAK,
        empty="no new address",
    ),
    Panel(
        "table",
        "One key, many addresses",
        f"Keys that were used from more than one address in the last two days of the range. {NOT_IN_IT}",
        f"""SELECT api_key_id AS key, uniqExact(client_ip) AS "addresses", uniqExact(user_id) AS "users",
    count() AS "calls", {SPENT} AS "USD", {DOUBTS}
FROM {_SINGLE}
WHERE api_key_id != '' AND client_ip != ''
GROUP BY key
HAVING "addresses" > 1
ORDER BY "addresses" DESC, key
LIMIT 20""",
        USD,
        height=8,
        decimals=4,
        deeper=LEAK,
        columns={"key": "key"},
        empty="every key keeps to one address",
    ),
)

BOARD = Board(
    LEAK,
    "tollmeter: leak",
    "Which model and key, which calls, from where; what is new; what looks like a loop.",
    "now-48h",
    PANELS,
    ("org", "provider", "model", "key", "user", "feature"),
)
