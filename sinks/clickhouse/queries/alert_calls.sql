-- The dearest calls of one scope in a span of time; `at_most`: without a known price, what it may cost.
SELECT e.event_time AS at, assumeNotNull(ifNull(e.cost_nano, e.at_risk_nano)) AS cost_nano, e.cost_nano IS NULL AS at_most,
    if(e.model_used = '', e.model_sent, e.model_used) AS model, e.client_ip AS address, e.request_id AS request_id
FROM usage_events AS e FINAL
WHERE e.event_time >= {since:DateTime64(6, 'UTC')} AND e.event_time < {until:DateTime64(6, 'UTC')}
    AND e.status != 'VOID' AND e.org_id = {org_id:String} AND ifNull(e.cost_nano, e.at_risk_nano) > 0
    -- include: scope
ORDER BY cost_nano DESC, e.event_time, e.event_id
LIMIT {top:UInt32}
SETTINGS max_execution_time = 2
