-- The ledger's totals of one organisation by scope and step of `step` seconds (0: all in one) over [from, until), as of
-- a priced offset; by min(event_time, received_at) as in WATCH. Tags are scopes here, and named "key=value".
SELECT
    if({step:UInt32} = 0, toInt64({from:Int64}), intDiv(toInt64(toUnixTimestamp(charged_at)), greatest({step:UInt32}, 1)) * {step:UInt32}) AS start_s,
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
        arrayConcat(
            [('org', ''), ('group', toString(group_id)), ('user', toString(user_id)),
             ('api_key', toString(api_key_id)), ('client_ip', toString(client_ip)), ('agent', toString(agent)),
             ('model', toString(model)), ('provider', toString(provider))],
            arrayDistinct(arrayMap(tag -> ('tag', concat(toString(tag.1), '=', toString(tag.2))), tags))) AS scopes
    FROM usage_events FINAL
    WHERE org_id = {org:String} AND priced_partition = {partition:UInt16} AND priced_offset <= {upto:Int64}
        AND event_time >= toDateTime64({from:Int64}, 6, 'UTC')
        AND (event_time < toDateTime64({until:Int64}, 6, 'UTC') + INTERVAL 5 MINUTE OR flags = 'ahead')
)
ARRAY JOIN scopes AS pair
WHERE charged_at >= toDateTime64({from:Int64}, 6, 'UTC') AND charged_at < toDateTime64({until:Int64}, 6, 'UTC')
    AND has({kinds:Array(String)}, pair.1) AND (pair.1 = 'org' OR pair.2 != '')
GROUP BY start_s, scope, name
ORDER BY start_s, scope, name
