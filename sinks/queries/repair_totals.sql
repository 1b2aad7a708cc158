-- The ledger's totals of one organisation by scope and {unit} inside the {within}s that begin at `starts`, by
-- min(event_time, received_at) as in WATCH. Rows far ahead of their append time are found by flag, others by sort key.
SELECT
    toInt64(toUnixTimestamp(toDateTime(dateTrunc({unit:String}, charged_at, 'UTC'), 'UTC'))) AS start_s,
    pair.1 AS scope, pair.2 AS name,
    toInt64(count()) AS calls,
    toInt64(countIf(status = 'ERROR')) AS errors,
    toInt64(countIf(status = 'BLOCKED')) AS blocked,
    toInt64(countIf(price_status = 'UNKNOWN_MODEL')) AS unknown_model,
    toInt64(sum(toInt128(input_tokens))) AS input_tokens,
    toInt64(sum(toInt128(cache_read_tokens))) AS cache_read_tokens,
    toInt64(sum(toInt128(output_tokens))) AS output_tokens,
    toInt64(sum(toInt128(if(byok, 0, ifNull(event_cost_nano, 0))))) AS cost_nano,
    toInt64(sum(toInt128(if(byok, ifNull(event_cost_nano, 0), 0)))) AS byok_cost_nano,
    toInt64(sum(toInt128(if(byok, 0, ifNull(event_risk_nano, 0))))) AS at_risk_nano,
    toInt64(sum(toInt128(if(byok, 0, ifNull(cost_eur_nano, 0) + ifNull(at_risk_eur_nano, 0))))) AS spend_eur_nano,
    toInt64(sum(toInt128(if(byok, 0, ifNull(cost_rub_nano, 0) + ifNull(at_risk_rub_nano, 0))))) AS spend_rub_nano,
    toInt64(countIf(byok AND status != 'BLOCKED')) AS byok_calls,
    toInt64(sum(toInt128(if(byok, event_tokens, 0)))) AS byok_tokens
FROM
(
    SELECT
        status, price_status, input_tokens, cache_read_tokens, output_tokens, cost_eur_nano, at_risk_eur_nano,
        cost_rub_nano, at_risk_rub_nano, input_tokens + output_tokens AS event_tokens, cost_nano AS event_cost_nano, at_risk_nano AS event_risk_nano,
        billing_scope = 'USER' AS byok, least(event_time, toDateTime64(received_at, 6, 'UTC')) AS charged_at,
        [('org', ''), ('group', toString(group_id)), ('user', toString(user_id)), ('api_key', toString(api_key_id)),
         ('client_ip', toString(client_ip)), ('agent', toString(agent)), ('model', toString(model)),
         ('provider', toString(provider))] AS scopes
    FROM usage_events FINAL
    WHERE org_id = {org:String} AND event_time >= {from:DateTime('UTC')}
        AND (event_time < {until:DateTime('UTC')} + INTERVAL 5 MINUTE OR flags = 'ahead')
)
ARRAY JOIN scopes AS pair
WHERE has({starts:Array(Int64)}, toInt64(toUnixTimestamp(toDateTime(dateTrunc({within:String}, charged_at, 'UTC'), 'UTC'))))
    AND (pair.1 = 'org' OR pair.2 != '')
GROUP BY start_s, scope, name
ORDER BY start_s, scope, name
