"""Fills the ledger with the past by SQL: calls that the line has priced, drawn out over the weeks before them.

Each becomes so many further calls of other ids and times, received and stored when they were made. Minutes are
computed by the rollup's own statement, days and months as WATCH has them; its minutes and hours hold the line's own.
"""

from typing import Any, NamedTuple

from benchmarks.line import WrongError
from tollmeter.sinks.clickhouse.client import ClickHouse
from tollmeter.sinks.clickhouse.queries import load

AT_ONCE = 200_000
"""Calls of one insert."""
_MINUTES = 1_000
_OWN = ("event_id", "event_time", "received_at", "inserted_at")
SEED = """
SELECT count() AS rows, toUnixTimestamp64Micro(min(event_time)) AS first_us,
    toUnixTimestamp64Micro(max(event_time)) + 1 AS end_us
FROM usage_events FINAL
"""
COLUMNS = (
    "SELECT name FROM system.columns WHERE database = currentDatabase() AND table = 'usage_events' ORDER BY position"
)
FILL = """
INSERT INTO usage_events (event_id, event_time, received_at, inserted_at, {names})
WITH fromUnixTimestamp64Micro({{first_us:Int64}} - 1 - toInt64(intDiv(
        toInt128({{end_us:Int64}} - toUnixTimestamp64Micro(e.event_time)) * {{span_us:Int64}},
        {{end_us:Int64}} - {{first_us:Int64}})) - toInt64(cityHash64(e.event_id, copy) % {{apart_us:UInt64}}),
    'UTC') AS at
SELECT generateUUIDv4(), at, at + INTERVAL 1 SECOND, at + INTERVAL 2 SECOND, {values}
FROM (SELECT * FROM usage_events FINAL WHERE event_time >= fromUnixTimestamp64Micro({{first_us:Int64}}, 'UTC')) AS e
ARRAY JOIN range({{from:UInt32}}, {{until:UInt32}}) AS copy
"""
SPANNED = "SELECT toUnixTimestamp(toStartOfMinute(min(event_time))) AS first FROM usage_events"
WINDOWS = """
INSERT INTO usage_windows
(
    level, bucket, org_id, scope, name, priced_partition, stamp, calls, errors, blocked, unknown_model, input_tokens,
    cache_read_tokens, output_tokens, cost_nano, byok_cost_nano, at_risk_nano, spend_eur_nano, spend_rub_nano,
    byok_calls, byok_tokens, peak_minute_nano, peak_hour_nano
)
SELECT level, bucket, org, scope, name, partition, stamp, calls, errors, blocked, unknown_model, input_tokens,
    cache_read_tokens, output_tokens, cost_nano, byok_cost_nano, at_risk_nano, spend_eur_nano, spend_rub_nano,
    byok_calls, byok_tokens, 0, 0
FROM
(
    SELECT {{level:String}} AS level, toDateTime(dateTrunc({{level:String}}, charged_at, 'UTC'), 'UTC') AS bucket,
        org, pair.1 AS scope, pair.2 AS name, any(partition_) AS partition,
        {measures}
    FROM
    (
        SELECT {measured}
            org_id AS org, priced_partition AS partition_,
            [('org', ''), ('group', toString(group_id)), ('user', toString(user_id)), ('api_key', toString(api_key_id)),
             ('client_ip', toString(client_ip)), ('agent', toString(agent)), ('model', toString(model_id)),
             ('provider', toString(provider_id)), ('version', toString(model)),
             ('feature', toString(operation_name))] AS scopes
        FROM usage_events FINAL
        WHERE status != 'VOID'
    )
    ARRAY JOIN scopes AS pair
    WHERE pair.1 = 'org' OR pair.2 != ''
    GROUP BY bucket, org, scope, name
) AS t
JOIN (SELECT priced_partition, max(stamp) AS stamp FROM usage_windows GROUP BY priced_partition) AS s
    ON s.priced_partition = t.partition
"""
SUMS = "SELECT count() AS calls, sum(toInt128(ifNull(cost_nano, 0))) AS cost_nano FROM usage_events FINAL"
MINUTES = "SELECT sum(calls) AS calls, sum(toInt128(cost_nano)) AS cost_nano FROM usage_minutes FINAL"
CELLS = """
SELECT sum(calls) AS calls, sum(toInt128(cost_nano) + byok_cost_nano) AS cost_nano
FROM usage_windows FINAL WHERE level = {level:String} AND scope = 'org'
"""


class Past(NamedTuple):
    """What the ledger holds now."""

    calls: int
    cost_nano: int


def fill(ledger: ClickHouse, calls: int, days: int) -> Past:
    """Bring the ledger to about so many calls of so many days. WATCH must not run: it holds totals of its own.

    Raises `WrongError` when minutes, days or months do not come to what the calls do.
    """
    (seed,) = ledger.query(SEED)
    copies = max(0, round(calls / seed["rows"]) - 1)
    _copy(ledger, seed, copies, days * 86_400_000_000)
    (row,) = ledger.query(SPANNED)
    last = seed["end_us"] // 1_000_000 + 60
    for first in range(row["first"], last, _MINUTES * 60):
        minutes = list(range(first, min(first + _MINUTES * 60, last), 60))
        ledger.command(load("rollup_recompute"), {"minutes": minutes})
    for level in ("day", "month"):
        text = WINDOWS.format(measures=load("_measures"), measured=load("_measured"))
        ledger.command(text, {"level": level})
    return check(ledger)


def check(ledger: ClickHouse) -> Past:
    """Return what the ledger holds. Raises `WrongError` when its sums do not agree."""
    (sums,) = ledger.query(SUMS)
    others = {"minutes": (MINUTES, {}), "days": (CELLS, {"level": "day"}), "months": (CELLS, {"level": "month"})}
    for name, (question, parameters) in others.items():
        (found,) = ledger.query(question, parameters)
        if found != sums:
            raise WrongError(f"the {name} hold {found}, the ledger {sums}")
    return Past(int(sums["calls"]), int(sums["cost_nano"]))


def _copy(ledger: ClickHouse, seed: dict[str, Any], copies: int, span_us: int) -> None:
    names = [row["name"] for row in ledger.query(COLUMNS) if row["name"] not in _OWN]
    text = FILL.format(names=", ".join(names), values=", ".join(f"e.{name}" for name in names))
    bounds = {"first_us": seed["first_us"], "end_us": seed["end_us"], "span_us": span_us}
    step = max(1, AT_ONCE // seed["rows"])
    for begin in range(0, copies, step):
        some = {"from": begin, "until": min(copies, begin + step), "apart_us": max(1, span_us // seed["rows"])}
        ledger.command(text, {**bounds, **some})
