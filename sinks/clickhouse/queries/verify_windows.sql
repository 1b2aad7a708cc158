-- WATCH's totals of one partition beside the ledger as of {applied}: how many were compared, and those that differ.
-- In a log that was made anew, rows received before {renewed_ms} stood in the one before it; stamps go on rising.
-- A row counts at min(event_time, received_at). low = rows up to {applied}; high = also later ones that are late, which
-- a repair may have brought in already. Totals that a newer checkpoint has written since are left out. Where names were
-- folded into '__other__', the sum over all names of the scope is compared ('*').
WITH
    folded AS
    (
        SELECT level, toInt64(toUnixTimestamp(bucket)) AS start_s, org_id, scope
        FROM usage_windows
        WHERE priced_partition = {partition:UInt16} AND name = '__other__' AND bucket >= toDateTime({from:UInt32}, 'UTC')
    ),
    arrayMap(x -> toInt64(0), range(14)) AS zeros
SELECT
    count() AS compared,
    countIf(differs) AS differing,
    groupArrayIf(10000)((level, start_s, toString(org_id), toString(scope), name_, stamp_, window, low, high), differs) AS found
FROM
(
    SELECT
        level, start_s, org_id, scope,
        if((level, start_s, org_id, scope) IN folded, '*', name) AS name_,
        max(stamp) AS stamp_,
        sumForEach(w) AS window, sumForEach(l) AS low, sumForEach(h) AS high,
        arrayExists((a, b, c) -> a < b OR a > c, window, low, high) AS differs
    FROM
    (
        SELECT
            toString(level) AS level, toInt64(toUnixTimestamp(bucket)) AS start_s, toString(org_id) AS org_id,
            toString(scope) AS scope, name, toInt64(stamp) AS stamp,
            [calls, errors, blocked, unknown_model, input_tokens, cache_read_tokens, output_tokens, cost_nano,
             byok_cost_nano, at_risk_nano, spend_eur_nano, spend_rub_nano, byok_calls, byok_tokens] AS w,
            zeros AS l, zeros AS h
        FROM usage_windows FINAL
        WHERE priced_partition = {partition:UInt16} AND bucket >= toDateTime({from:UInt32}, 'UTC') AND scope IN {scopes:Array(String)}
            AND level IN ('minute', 'hour', 'day', 'month')
        UNION ALL
        SELECT
            start.1, start.2, org_,
            pair.1, pair.2, toInt64(0), zeros, if(sure, m, zeros), m
        FROM
        (
            SELECT
                toString(org_id) AS org_, least(event_time, toDateTime64(received_at, 6, 'UTC')) AS charged_at,
                toInt64(priced_offset) <= {applied:Int64}
                    OR received_at < fromUnixTimestamp64Milli({renewed_ms:Int64}, 'UTC') AS sure,
                dateDiff('second', charged_at, received_at) > {late:Int64} AS late,
                billing_scope = 'USER' AS byok,
                ifNull(cost_nano, 0) AS cost, ifNull(at_risk_nano, 0) AS risk,
                arrayMap(x -> toInt64(x), [
                    1, status = 'ERROR', status = 'BLOCKED', price_status = 'UNKNOWN_MODEL', input_tokens,
                    cache_read_tokens, output_tokens, if(byok, 0, cost), if(byok, cost, 0), if(byok, 0, risk),
                    if(byok, 0, ifNull(cost_eur_nano, 0) + ifNull(at_risk_eur_nano, 0)),
                    if(byok, 0, ifNull(cost_rub_nano, 0) + ifNull(at_risk_rub_nano, 0)),
                    byok AND status != 'BLOCKED', if(byok, input_tokens + output_tokens, 0)]) AS m,
                [('org', ''), ('group', toString(group_id)), ('user', toString(user_id)), ('api_key', toString(api_key_id)),
                 ('client_ip', toString(client_ip)), ('agent', toString(agent)), ('model', toString(model_id)),
                 ('provider', toString(provider_id)), ('version', toString(model)),
                 ('feature', toString(operation_name))] AS pairs
            FROM usage_events FINAL
            WHERE status != 'VOID' AND priced_partition = {partition:UInt16} AND event_time >= toDateTime({from:UInt32}, 'UTC') AND (sure OR late)
        )
        ARRAY JOIN pairs AS pair
        ARRAY JOIN [
            ('minute', toInt64(toUnixTimestamp(toStartOfMinute(charged_at)))),
            ('hour', toInt64(toUnixTimestamp(toStartOfHour(charged_at)))),
            ('day', toInt64(toUnixTimestamp(toDateTime(toDate(charged_at), 'UTC')))),
            ('month', toInt64(toUnixTimestamp(toDateTime(toStartOfMonth(charged_at), 'UTC'))))
        ] AS start
        WHERE (pair.1 = 'org' OR pair.2 != '') AND start.2 >= {from:UInt32}
    )
    GROUP BY level, start_s, org_id, scope, name_
    HAVING stamp_ <= {stamp:Int64}
)
