"""Alert rules for Grafana: a second pair of eyes on the money, and the first on a line that stands still.

tollmeter's own alerts come within a second. These read the ledger once a minute, and answer a row with 0 rather than no
row: a series that vanishes would resolve its alert.
"""

from dataclasses import dataclass

from tollmeter.dashboards.grafana.render import SOURCE_UID

RUNBOOK = "docs/runbook.md"
"""Grafana replaces nothing in annotations: `generate` takes the address of your copy."""


@dataclass(frozen=True, slots=True)
class Rule:
    """A question that answers label columns and one number `v`; the rule fires while a number is above `above`."""

    uid: str
    title: str
    summary: str
    anchor: str
    """Heading of the runbook."""
    board: str
    sql: str
    above: float
    since_s: int = 900
    wait: str = "0s"
    severity: str = "warning"
    silent_without_data: bool = True
    """Whether no row is well: a question about calls has none where nobody calls."""


RULES = (
    Rule(
        "tm-stale",
        "The ledger is behind",
        "Nothing was stored for {{ $values.B }} s: the line stands still, or nobody calls",
        "consumer-lag",
        "tollmeter-pipeline",
        """SELECT toFloat64(dateDiff('second', max(stored_at), now64(3, 'UTC'))) AS v
FROM line_progress
LIMIT 1""",
        600,
        wait="2m",
        severity="critical",
        silent_without_data=False,
    ),
    Rule(
        "tm-watch-stale",
        "WATCH is behind the ledger",
        "Partition {{ $labels.partition }}: {{ $values.B }} records are not folded yet",
        "consumer-lag",
        "tollmeter-pipeline",
        """SELECT toString(priced_partition) AS partition,
    toFloat64(if(ifNull(watch_at, toDateTime64(0, 3)) < stored_at - INTERVAL 2 MINUTE,
        greatest(0, ledger_offset - ifNull(watch_offset, 0)), 0)) AS v
FROM line_progress
ORDER BY partition
LIMIT 1000""",
        0,
        wait="5m",
        severity="critical",
    ),
    Rule(
        "tm-silent",
        "A service fell silent",
        "{{ $labels.service }} has been silent for {{ $values.B }} times twice its longest pause of a week",
        "silent",
        "tollmeter-pipeline",
        """SELECT service, if(calls < 20 OR first > now() - INTERVAL 1 DAY, 0, dateDiff('second', last, now('UTC'))
    / greatest(600, arrayMax(arrayDifference(arraySort(minutes))) * 2)) AS v
FROM (
    SELECT service, count() AS calls, min(event_time) AS first, max(event_time) AS last,
        groupUniqArray(toUnixTimestamp(minute)) AS minutes
    FROM usage
    WHERE event_time >= now() - INTERVAL 8 DAY AND event_time < now() AND service != ''
        AND received_at < event_time + INTERVAL 1 HOUR
    GROUP BY service
)
ORDER BY service
LIMIT 500""",
        1,
        since_s=691_200,
        wait="1m",
    ),
    Rule(
        "tm-dead-letters",
        "Dead letters",
        "{{ $values.B }} records could not be read in the last 15 minutes",
        "dlq_flood",
        "tollmeter-pipeline",
        """SELECT toFloat64(sum(rejected)) AS v
FROM line_batches
WHERE stored_at >= $__fromTime AND stored_at < $__toTime
LIMIT 1""",
        0,
    ),
    Rule(
        "tm-gap",
        "Records were lost before they were read",
        "{{ $values.B }} parts of the log were gone in the last hour",
        "gap",
        "tollmeter-pipeline",
        """SELECT toFloat64(count()) AS v
FROM line_gaps
WHERE found_at >= $__fromTime AND found_at < $__toTime
LIMIT 1""",
        0,
        since_s=3_600,
        severity="critical",
    ),
    Rule(
        "tm-unpriced-share",
        "Calls without a price",
        "{{ $labels.org_id }}: {{ $values.B }} % of the calls of an hour have no known price",
        "unpriced",
        "tollmeter-spend",
        """SELECT org_id, if(count() < 20, 0,
    100 * countIf(cost_nano IS NULL AND NOT (status = 'ERROR' AND price_status = 'NO_USAGE')) / count()) AS v
FROM usage
WHERE event_time >= $__fromTime AND event_time < $__toTime
GROUP BY org_id
ORDER BY org_id
LIMIT 1000""",
        1,
        since_s=3_600,
        wait="5m",
    ),
    Rule(
        "tm-key-spend",
        "A key spends far more than it usually does",
        "{{ $labels.api_key_id }} of {{ $labels.org_id }}: {{ $values.B }} times the dearest same hour of four weeks",
        "spend_spike",
        "tollmeter-leak",
        """SELECT n.org_id AS org_id, n.api_key_id AS api_key_id, n.usd / greatest(1, ifNull(p.usd, 0)) AS v
FROM (
    SELECT org_id, api_key_id, sum(cost_nano) / 1e9 AS usd
    FROM usage
    WHERE event_time >= $__fromTime AND event_time < $__toTime AND api_key_id != ''
    GROUP BY org_id, api_key_id
) AS n
LEFT JOIN (
    SELECT org_id, api_key_id, max(usd) AS usd
    FROM (
        SELECT org_id, api_key_id, intDiv(dateDiff('hour', minute, $__toTime), 168) AS week, sum(cost_nano) / 1e9 AS usd
        FROM usage_minutely
        WHERE minute >= $__toTime - INTERVAL 28 DAY AND minute < $__fromTime
            AND dateDiff('hour', minute, $__toTime) % 168 = 0
        GROUP BY org_id, api_key_id, week
    )
    GROUP BY org_id, api_key_id
) AS p ON p.org_id = n.org_id AND p.api_key_id = n.api_key_id
WHERE n.usd >= 5
ORDER BY v DESC, org_id, api_key_id
LIMIT 100""",
        3,
        since_s=3_600,
    ),
    Rule(
        "tm-budget",
        "A limit is spent",
        "{{ $labels.budget }} stands at {{ $values.B }} % of its limit",
        "budget",
        "tollmeter-budgets",
        """SELECT concat(org_id, ' ', scope, ' ', name, ' ', period, ' ', unit) AS budget, 100 * used / amount AS v
FROM budget_use
WHERE scope NOT IN ('session', 'run')
ORDER BY v DESC, budget
LIMIT 1000""",
        99.9999,
        severity="critical",
    ),
    Rule(
        "tm-budget-warning",
        "A limit is almost spent",
        "{{ $labels.budget }} has used {{ $values.B }} % of what its own warning says",
        "budget",
        "tollmeter-budgets",
        """SELECT concat(org_id, ' ', scope, ' ', name, ' ', period, ' ', unit) AS budget,
    100 * (100 * used / amount) / warn_threshold_pct AS v
FROM budget_use
WHERE scope NOT IN ('session', 'run')
ORDER BY v DESC, budget
LIMIT 1000""",
        99.9999,
    ),
    Rule(
        "tm-reconcile",
        "A provider billed something else",
        "{{ $labels.provider }} {{ $labels.source }}: billed and ours differ by {{ $values.B }} USD in a week",
        "bill_gap",
        "tollmeter-reconcile",
        """SELECT b.provider AS provider, b.source AS source,
    if(abs(sum(b.usd) - sum(o.usd)) * 100 > abs(sum(b.usd)), abs(sum(b.usd) - sum(o.usd)), 0) AS v
FROM (
    SELECT provider, source, day, toFloat64(sum(amount_usd)) AS usd
    FROM provider_bills
    WHERE is_final AND is_whole AND amount IS NOT NULL AND day >= toDate($__fromTime) AND day < toDate($__toTime)
    GROUP BY provider, source, day
) AS b
LEFT JOIN (
    SELECT provider_id AS provider, toDate(event_time) AS day, sum(ifNull(cost_nano, 0)) / 1e9 AS usd
    FROM usage
    WHERE event_time >= toStartOfDay($__fromTime) AND event_time < toStartOfDay($__toTime)
        AND billing_scope != 'USER' AND status != 'BLOCKED'
    GROUP BY provider, day
) AS o ON o.provider = b.provider AND o.day = b.day
GROUP BY provider, source
ORDER BY v DESC, provider, source
LIMIT 100""",
        1,
        since_s=604_800,
    ),
    Rule(
        "tm-verify",
        "Log, ledger and totals disagree",
        "verify found {{ $values.B }} differences in the last day",
        "verify_difference",
        "tollmeter-pipeline",
        """SELECT toFloat64(countIf(state != 'resolved')) AS v
FROM alert_list
WHERE kind = 'verify_difference' AND received_at >= $__fromTime AND received_at < $__toTime
LIMIT 1""",
        0,
        since_s=86_400,
        severity="critical",
    ),
)


def group(runbook: str = RUNBOOK) -> dict[str, object]:
    """Return the rules as Grafana's alert file; each leads to the first panel of its board."""
    rules = [_rule(rule, runbook) for rule in RULES]
    named = {"orgId": 1, "name": "tollmeter", "folder": "tollmeter", "interval": "60s", "rules": rules}
    return {"apiVersion": 1, "groups": [named]}


def _rule(rule: Rule, runbook: str) -> dict[str, object]:
    """In files it is `keepFiringFor` and `missing_series_evals_to_resolve`: other spellings are dropped silently."""
    return {
        "uid": rule.uid,
        "title": rule.title,
        "condition": "C",
        "for": rule.wait,
        "keepFiringFor": "10m",
        "noDataState": "OK" if rule.silent_without_data else "NoData",
        "execErrState": "Error",
        "labels": {"severity": rule.severity, "source": "tollmeter"},
        "annotations": {
            "summary": rule.summary,
            "runbook_url": f"{runbook}#{rule.anchor}",
            "__dashboardUid__": rule.board,
            "__panelId__": "1",
        },
        "data": [
            {
                "refId": "A",
                "datasourceUid": SOURCE_UID,
                "relativeTimeRange": {"from": rule.since_s, "to": 0},
                "model": {"refId": "A", "editorType": "sql", "queryType": "table", "format": 1, "rawSql": rule.sql},
            },
            {
                "refId": "B",
                "datasourceUid": "__expr__",
                "model": {"refId": "B", "type": "reduce", "expression": "A", "reducer": "last"},
            },
            {
                "refId": "C",
                "datasourceUid": "__expr__",
                "model": {
                    "refId": "C",
                    "type": "threshold",
                    "expression": "B",
                    "conditions": [{"evaluator": {"type": "gt", "params": [rule.above]}}],
                },
            },
        ],
    }
