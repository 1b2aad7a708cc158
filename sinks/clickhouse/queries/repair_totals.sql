-- The ledger's totals of one organisation by scope and {unit} inside the {within}s that begin at `starts`, by
-- min(event_time, received_at) as in WATCH. Rows far ahead of their append time are found by flag, others by sort key.
SELECT
    toInt64(toUnixTimestamp(toDateTime(dateTrunc({unit:String}, charged_at, 'UTC'), 'UTC'))) AS start_s,
    pair.1 AS scope, pair.2 AS name,
    -- include: measures
FROM
(
    SELECT
        -- include: measured
        [('org', ''), ('group', toString(group_id)), ('user', toString(user_id)), ('api_key', toString(api_key_id)),
         ('client_ip', toString(client_ip)), ('agent', toString(agent)), ('model', toString(model_id)),
         ('provider', toString(provider_id)), ('version', toString(model)),
         ('feature', toString(operation_name))] AS scopes
    FROM usage_events FINAL
    WHERE org_id = {org:String} AND status != 'VOID' AND event_time >= {from:DateTime('UTC')}
        AND (event_time < {until:DateTime('UTC')} + INTERVAL 5 MINUTE OR flags = 'ahead')
)
ARRAY JOIN scopes AS pair
WHERE has({starts:Array(Int64)}, toInt64(toUnixTimestamp(toDateTime(dateTrunc({within:String}, charged_at, 'UTC'), 'UTC'))))
    AND (pair.1 = 'org' OR pair.2 != '')
GROUP BY start_s, scope, name
ORDER BY start_s, scope, name
