-- Calls of a period, newest or dearest first, a page of them.
SELECT
    e.event_id AS event_id, e.event_time AS at, e.org_id AS org_id, e.user_id AS user_id, e.group_id AS group_id,
    e.api_key_id AS api_key_id, e.client_ip AS client_ip, e.provider AS provider,
    if(e.model_used = '', e.model_sent, e.model_used) AS model, e.operation_name AS operation_name, e.service AS service,
    e.status AS status, e.input_tokens AS input_tokens, e.cache_read_tokens AS cache_read_tokens,
    e.output_tokens AS output_tokens, e.cost_nano AS cost_nano, e.at_risk_nano AS at_risk_nano,
    e.price_status AS price_status, e.usage_source AS usage_source, e.request_id AS request_id
FROM usage_events AS e FINAL
WHERE
    -- include: asked
ORDER BY
    if({by_cost:UInt8} = 1, ifNull(e.cost_nano, -1), 0) DESC, e.event_time DESC, toString(e.event_id) DESC
LIMIT {top:UInt32} OFFSET {skip:UInt32}
