-- Minutes of the rollup beside the ledger, but for those with an insert since, or so shortly before that it may have been
-- missed. A minute that the rollup has not at all counts when its inserts are covered.
SELECT minute, pair.1 AS name, pair.2 AS rollup, pair.3 AS ledger
FROM
(
    SELECT
        e.minute AS minute,
        [
            ('calls', toInt64(m.calls), toInt64(e.calls)),
            ('input_tokens', m.input, e.input),
            ('output_tokens', m.output, e.output),
            ('cost_nano', m.cost, e.cost)
        ] AS pairs
    FROM
    (
        SELECT
            toStartOfMinute(event_time) AS minute, count() AS calls, sum(input_tokens) AS input,
            sum(output_tokens) AS output, sum(ifNull(cost_nano, 0)) AS cost,
            toUnixTimestamp64Micro(max(inserted_at)) AS last_us
        FROM usage_events FINAL
        WHERE event_time < '2106-01-01'
        GROUP BY minute
    ) AS e
    LEFT JOIN
    (
        SELECT
            minute, sum(calls) AS calls, sum(input_tokens) AS input, sum(output_tokens) AS output,
            sum(cost_nano) AS cost, toUnixTimestamp64Micro(max(computed_at)) AS computed_us
        FROM usage_minutes FINAL
        GROUP BY minute
    ) AS m ON e.minute = m.minute
    WHERE if(
        m.computed_us > 0,
        e.last_us < m.computed_us - {slack_us:Int64},
        e.minute >= {oldest:DateTime64(6, 'UTC')}
            AND e.last_us < (SELECT toUnixTimestamp64Micro(max(covered_until)) FROM rollup_progress WHERE name = 'usage_minutes')
    )
)
ARRAY JOIN pairs AS pair
ORDER BY minute, name
