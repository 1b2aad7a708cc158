"""Board 4, Pipeline: whether the figures are fresh and whole, and what was set aside on the way."""

from tollmeter.dashboards.grafana.model import COUNT, SECONDS, Board, Panel
from tollmeter.dashboards.grafana.spend import LEAK
from tollmeter.dashboards.grafana.spend import UID as SPEND
from tollmeter.dashboards.grafana.sql import SINCE, UNTIL, within

UID = "tollmeter-pipeline"
TWO_DAYS = f"greatest({SINCE}, {UNTIL} - toIntervalDay(2))"
_SELF = "('verify_difference', 'gap', 'new_epoch', 'paused', 'dlq_flood', 'unpriced', 'storm')"

PANELS = (
    Panel(
        "stat",
        "Behind",
        "How long ago the ledger stored its newest batch, and WATCH saved its place. A minute and more means that the "
        "line stands still, or that nobody called.",
        """SELECT dateDiff('millisecond', max(stored_at), now64(3, 'UTC')) / 1000 AS "ledger",
    dateDiff('millisecond', max(watch_at), now64(3, 'UTC')) / 1000 AS "watch"
FROM line_progress
LIMIT 1""",
        SECONDS,
        width=8,
        height=5,
        warn=(60, 600),
        deeper=SPEND,
        empty="nothing was stored yet",
    ),
    Panel(
        "stat",
        "Records",
        "Of the source log, by when the ledger had them: read, dead letters, rows for the ledger. Read is the sum of "
        "the two others; rows beyond the calls that the ledger kept are events that were sent again.",
        f"""SELECT sum(records) AS "read", sum(rejected) AS "dead letters", sum(rows) AS "rows"
FROM line_batches
WHERE {within("stored_at")}
LIMIT 1""",
        COUNT,
        width=8,
        height=5,
        deeper=LEAK,
    ),
    Panel(
        "stat",
        "Gaps",
        "Parts of the log that were gone before a stage had read them. Each of them is calls that are missing.",
        'SELECT count() AS "gaps", sum(last_offset - first_offset + 1) AS "records lost"\nFROM line_gaps\nLIMIT 1',
        COUNT,
        width=8,
        height=5,
        warn=(1, 1),
        deeper=LEAK,
    ),
    Panel(
        "series",
        "From the call's arrival to the ledger",
        "Seconds between the append in Kafka and the row in ClickHouse: median and 99th percentile.",
        f"""SELECT $__timeInterval(received_at) AS time,
    quantile(0.5)(dateDiff('millisecond', received_at, inserted_at)) / 1000 AS "median",
    quantile(0.99)(dateDiff('millisecond', received_at, inserted_at)) / 1000 AS "p99"
FROM usage
WHERE {within("event_time", TWO_DAYS)}
GROUP BY time
ORDER BY time
LIMIT 20000""",
        SECONDS,
        deeper=LEAK,
    ),
    Panel(
        "series",
        "From the call to its arrival",
        "Seconds between the call and the append of its event: median and 99th percentile. A spool that is drained "
        "late shows here.",
        f"""SELECT $__timeInterval(received_at) AS time,
    quantile(0.5)(greatest(0, dateDiff('millisecond', event_time, received_at))) / 1000 AS "median",
    quantile(0.99)(greatest(0, dateDiff('millisecond', event_time, received_at))) / 1000 AS "p99"
FROM usage
WHERE {within("event_time", TWO_DAYS)}
GROUP BY time
ORDER BY time
LIMIT 20000""",
        SECONDS,
        deeper=LEAK,
    ),
    Panel(
        "series",
        "Records over time",
        "Records read and dead letters, by when the ledger had them.",
        f"""SELECT $__timeInterval(stored_at) AS time, sum(rows) AS "rows", sum(rejected) AS "dead letters"
FROM line_batches
WHERE {within("stored_at")}
GROUP BY time
ORDER BY time
LIMIT 20000""",
        COUNT,
        deeper=LEAK,
    ),
    Panel(
        "table",
        "Partitions",
        "How far the ledger and WATCH are in each partition of usage.priced. WATCH saves its place every few seconds.",
        """SELECT priced_partition AS partition, ledger_offset AS "ledger", watch_offset AS "watch",
    if(watch_offset > ledger_offset, 0, ledger_offset - watch_offset) AS "records behind",
    stored_at AS "ledger at", watch_at AS "watch at"
FROM line_progress
ORDER BY partition
LIMIT 1000""",
        "none",
        deeper=SPEND,
    ),
    Panel(
        "table",
        "What the line says of itself",
        "Differences that verify found, gaps, paused partitions, floods of dead letters, storms of alerts.",
        f"""SELECT received_at AS "at", severity, kind, org_id AS organisation, text, state
FROM alert_list
WHERE kind IN {_SELF} AND {within("received_at")}
ORDER BY received_at DESC, id
LIMIT 100""",
        "none",
        width=16,
        deeper=LEAK,
        empty="nothing to report",
    ),
    Panel(
        "table",
        "Calls by state of their price",
        "Why calls have no known cost: the model, the counts, or both are missing.",
        f"""SELECT price_status AS "price", count() AS "calls", countIf(cost_nano IS NULL) AS "unpriced"
FROM usage
WHERE {within("event_time", TWO_DAYS)}
GROUP BY "price"
ORDER BY "calls" DESC, "price"
LIMIT 20""",
        COUNT,
        width=8,
        deeper=LEAK,
    ),
    Panel(
        "table",
        "Services",
        "Who reports, and when last: a service that fell silent stands first.",
        f"""SELECT service, environment, producer, count() AS "calls", max(received_at) AS "last",
    dateDiff('second', max(received_at), now('UTC')) AS "seconds ago"
FROM usage
WHERE {within("event_time", TWO_DAYS)}
GROUP BY service, environment, producer
ORDER BY "last", service, environment, producer
LIMIT 50""",
        "none",
        width=24,
        deeper=LEAK,
        empty="no service has reported",
    ),
)

BOARD = Board(
    UID,
    "tollmeter: pipeline",
    "Whether the figures are fresh and whole, and what was set aside on the way.",
    "now-6h",
    PANELS,
    (),
)
