-- The ledger's totals of one organisation by scope and {unit} inside the {within}s that begin at `starts`, by
-- min(event_time, received_at) as in WATCH. Rows far ahead of their append time are looked up by flag, so that all are
-- found by sort key: a condition on the flag itself would have the rest of the month read for an hour.
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
    PREWHERE org_id = {org:String} AND event_time >= {from:DateTime('UTC')}
        AND (event_time < {until:DateTime('UTC')} + INTERVAL 5 MINUTE OR (event_time, org_id, event_id) IN
            (SELECT event_time, org_id, event_id FROM usage_events WHERE org_id = {org:String} AND flags = 'ahead' AND event_time >= {from:DateTime('UTC')}))
    WHERE status != 'VOID'
)
ARRAY JOIN scopes AS pair
WHERE has({starts:Array(Int64)}, toInt64(toUnixTimestamp(toDateTime(dateTrunc({within:String}, charged_at, 'UTC'), 'UTC'))))
    AND (pair.1 = 'org' OR pair.2 != '')
GROUP BY start_s, scope, name
ORDER BY start_s, scope, name
