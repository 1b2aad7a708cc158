-- Which other keys spent from the addresses of a key in a span of time, with what is at risk, dearest first. NULL: of calls
-- alone whose cost nobody knows.
SELECT e.api_key_id AS name, toInt64(sum(toInt128(ifNull(e.cost_nano, 0)) + ifNull(e.at_risk_nano, 0))) AS spent_nano,
    if(spent_nano = 0 AND countIf(e.cost_nano IS NULL AND e.status != 'ERROR') > 0, NULL, spent_nano) AS cost_nano
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
ORDER BY spent_nano DESC, name
LIMIT {top:UInt32}
SETTINGS max_execution_time = 2
