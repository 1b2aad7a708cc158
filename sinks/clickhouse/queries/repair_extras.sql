-- The ledger's totals of one organisation by scope and step of `step` seconds (0: all in one) over [from, until), as of
-- a priced offset; by min(event_time, received_at) as in WATCH. Tags are scopes here, and named "key=value". All rows are
-- found by sort key, as in repair_totals.
SELECT
    if({step:UInt32} = 0, toInt64({from:Int64}), intDiv(toInt64(toUnixTimestamp(charged_at)), greatest({step:UInt32}, 1)) * {step:UInt32}) AS start_s,
    pair.1 AS scope, pair.2 AS name,
    -- include: measures
FROM
(
    SELECT
        -- include: measured
        arrayConcat(
            [('org', ''), ('group', toString(group_id)), ('user', toString(user_id)),
             ('api_key', toString(api_key_id)), ('client_ip', toString(client_ip)), ('agent', toString(agent)),
             ('model', toString(model_id)), ('provider', toString(provider_id)), ('version', toString(model)),
             ('feature', toString(operation_name)), ('session', session_id), ('run', trace_id)],
            arrayDistinct(arrayMap(tag -> ('tag', concat(toString(tag.1), '=', toString(tag.2))), tags))) AS scopes
    FROM usage_events FINAL
    PREWHERE org_id = {org:String} AND event_time >= toDateTime64({from:Int64}, 6, 'UTC')
        AND (event_time < toDateTime64({until:Int64}, 6, 'UTC') + INTERVAL 5 MINUTE OR (event_time, org_id, event_id) IN
            (SELECT event_time, org_id, event_id FROM usage_events WHERE org_id = {org:String} AND flags = 'ahead' AND event_time >= toDateTime64({from:Int64}, 6, 'UTC')))
    WHERE priced_partition = {partition:UInt16} AND priced_offset <= {upto:Int64} AND status != 'VOID'
)
ARRAY JOIN scopes AS pair
WHERE charged_at >= toDateTime64({from:Int64}, 6, 'UTC') AND charged_at < toDateTime64({until:Int64}, 6, 'UTC')
    AND has({kinds:Array(String)}, pair.1) AND (pair.1 = 'org' OR pair.2 != '')
GROUP BY start_s, scope, name
ORDER BY start_s, scope, name
