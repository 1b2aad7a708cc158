-- Groups of the minute rollup beside the ledger: how many were compared, and those that differ. Left out are minutes
-- with an insert since they were computed, or so shortly before that it may have been missed: they are computed again.
-- A minute that the rollup has not at all counts when its inserts are covered; those before {oldest} may be half
-- deleted by retention.
SELECT
    count() AS compared,
    countIf(rollup != ledger) AS differing,
    groupArrayIf(10000)((minute, toString(org_id), toString(api_key_id), toString(provider), toString(model),
                         toString(billing_scope), rollup, ledger), rollup != ledger) AS found
FROM
(
    SELECT
        minute, org_id, api_key_id, provider, model, billing_scope,
        sumForEach(r) AS rollup, sumForEach(l) AS ledger
    FROM
    (
        SELECT
            toStartOfMinute(event_time) AS minute, toString(org_id) AS org_id, toString(api_key_id) AS api_key_id,
            toString(provider) AS provider, toString(model) AS model, toString(billing_scope) AS billing_scope,
            arrayMap(x -> toInt64(0), range(13)) AS r,
            arrayMap(x -> toInt64(x), [
                1, status = 'ERROR', status = 'BLOCKED',
                cost_nano IS NULL AND NOT (status = 'ERROR' AND price_status = 'NO_USAGE'), input_tokens, cache_read_tokens,
                cache_write_tokens, output_tokens, reasoning_tokens, ifNull(cost_nano, 0), ifNull(at_risk_nano, 0),
                ifNull(cost_eur_nano, 0), ifNull(cost_rub_nano, 0)]) AS l
        FROM usage_events FINAL
        WHERE status != 'VOID' AND event_time >= {from:DateTime64(6, 'UTC')} AND event_time < '2106-01-01'
        UNION ALL
        SELECT
            minute, toString(org_id), toString(api_key_id), toString(provider), toString(model), toString(billing_scope),
            arrayMap(x -> toInt64(x), [
                calls, errors, blocked, unpriced, input_tokens, cache_read_tokens, cache_write_tokens, output_tokens,
                reasoning_tokens, cost_nano, at_risk_nano, cost_eur_nano, cost_rub_nano]),
            arrayMap(x -> toInt64(0), range(13))
        FROM usage_minutes FINAL
        WHERE minute >= {from:DateTime64(6, 'UTC')}
    )
    WHERE minute NOT IN
    (
        SELECT minute
        FROM
        (
            SELECT toStartOfMinute(event_time) AS minute, toUnixTimestamp64Micro(max(inserted_at)) AS last_us
            FROM usage_events
            WHERE event_time >= {from:DateTime64(6, 'UTC')} AND event_time < '2106-01-01'
            GROUP BY minute
        ) AS e
        LEFT JOIN
        (
            SELECT minute, toUnixTimestamp64Micro(max(computed_at)) AS computed_us
            FROM usage_minutes
            WHERE minute >= {from:DateTime64(6, 'UTC')}
            GROUP BY minute
        ) AS c ON e.minute = c.minute
        WHERE if(
            c.computed_us > 0,
            e.last_us >= c.computed_us - {slack_us:Int64},
            e.minute < {oldest:DateTime64(6, 'UTC')} OR e.last_us >=
                (SELECT toUnixTimestamp64Micro(max(covered_until)) FROM rollup_progress WHERE name = 'usage_minutes')
        )
    )
    AND NOT (minute < {oldest:DateTime64(6, 'UTC')} AND minute NOT IN (SELECT toStartOfMinute(event_time) FROM usage_events))
    GROUP BY minute, org_id, api_key_id, provider, model, billing_scope
)
