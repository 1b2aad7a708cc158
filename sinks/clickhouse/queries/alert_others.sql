-- Which other keys spent from the addresses of a key in a span of time, dearest first.
SELECT e.api_key_id AS name, sum(toInt128(ifNull(e.cost_nano, 0))) AS cost_nano
FROM usage_events AS e FINAL
WHERE e.event_time >= {since:DateTime64(6, 'UTC')} AND e.event_time < {until:DateTime64(6, 'UTC')}
    AND e.status != 'VOID' AND e.org_id = {org_id:String} AND e.api_key_id NOT IN ('', {name:String})
    AND e.client_ip IN
    (
        SELECT client_ip FROM usage_events
        WHERE event_time >= {since:DateTime64(6, 'UTC')} AND event_time < {until:DateTime64(6, 'UTC')}
            AND status != 'VOID' AND org_id = {org_id:String} AND api_key_id = {name:String} AND client_ip != ''
    )
GROUP BY name
ORDER BY cost_nano DESC, name
LIMIT {top:UInt32}
SETTINGS max_execution_time = 2
