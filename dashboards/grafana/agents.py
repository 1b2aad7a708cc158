"""Board 6, Coding agents: what agents cost by developer, repository, session and model."""

from tollmeter.dashboards.grafana.model import COUNT, USD, Board, Panel
from tollmeter.dashboards.grafana.spend import LEAK, NOT_IN_IT
from tollmeter.dashboards.grafana.spend import UID as SPEND
from tollmeter.dashboards.grafana.sql import DOUBTS, SINCE, UNTIL, calls
from tollmeter.dashboards.grafana.sql import USD as SPENT

UID = "tollmeter-agents"
_RANGE = f"greatest({SINCE}, {UNTIL} - toIntervalDay(7))"
_CALLS = f"{calls(_RANGE)}\nWHERE agent != ''"
_WEEK = "of the last seven days of the range"
_EMPTY = "no agent reports: see docs/calls.md"


def by(title: str, about: str, names: dict[str, str], more: str = "", column: str = "") -> Panel:
    """Return a table of agents' calls by names: column of the board to column of the ledger."""
    chosen = ", ".join(f"{source} AS {name}" for name, source in names.items())
    group = ", ".join(names)
    return Panel(
        "table",
        title,
        f"{about} {_WEEK}. {NOT_IN_IT}",
        f"""SELECT {chosen}, {SPENT} AS "USD", count() AS "calls", {more}
    sum(input_tokens) AS "input", sum(output_tokens) AS "output", {DOUBTS}
FROM {_CALLS}
GROUP BY {group}
ORDER BY sum(known_nano) DESC, {group}
LIMIT 50""",
        USD,
        decimals=4,
        height=9,
        deeper=LEAK,
        columns={column: column} if column else {},
        empty=_EMPTY,
    )


PANELS = (
    Panel(
        "stat",
        "Agents",
        f"Known cost, calls, developers and sessions {_WEEK}. What a subscription pays for costs nothing here. "
        f"{NOT_IN_IT}",
        f"""SELECT {SPENT} AS "USD", count() AS "calls", uniqExact(user_id) AS "users",
    uniqExact(session_id) AS "sessions",
    countIf(price_status = 'SUBSCRIPTION') AS "by subscription", {DOUBTS}
FROM {_CALLS}
LIMIT 1""",
        USD,
        width=24,
        height=5,
        deeper=SPEND,
    ),
    by(
        "Developers",
        "The dearest 50 developers",
        {'"developer"': "user_id", '"agent"': "agent"},
        'uniqExact(session_id) AS "sessions",',
    ),
    by(
        "Repositories",
        "The dearest 50 repositories",
        {'"repository"': "tags['repository']"},
        'uniqExact(user_id) AS "users",',
    ),
    by(
        "Sessions",
        "The dearest 50 sessions",
        {'"session"': "session_id", '"developer"': "user_id", '"agent"': "agent"},
        'min(event_time) AS "first", max(event_time) AS "last",',
    ),
    by(
        "Agents' models",
        "Models by agent",
        {'"agent"': "agent", "model": "model"},
        'uniqExact(user_id) AS "users",',
        "model",
    ),
    Panel(
        "series",
        "Cost by agent",
        f"Known cost over time {_WEEK}. What is not in it: the panel Agents.",
        f"""SELECT $__timeInterval(event_time) AS time, agent AS name, {SPENT} AS "USD"
FROM {_CALLS}
GROUP BY time, name
ORDER BY time, name
LIMIT 20000""",
        USD,
        width=24,
        height=9,
        deeper=SPEND,
        empty=_EMPTY,
    ),
    Panel(
        "series",
        "Active developers",
        f"Developers whose agents called {_WEEK}.",
        f"""SELECT $__timeInterval(event_time) AS time, uniqExact(user_id) AS "users"
FROM {_CALLS}
GROUP BY time
ORDER BY time
LIMIT 20000""",
        COUNT,
        width=24,
        height=7,
        deeper=SPEND,
        empty=_EMPTY,
    ),
)

BOARD = Board(
    UID,
    "tollmeter: coding agents",
    "What coding agents cost by developer, repository, session and model.",
    "now-7d",
    PANELS,
    ("org", "provider", "model", "key", "user", "feature"),
)
