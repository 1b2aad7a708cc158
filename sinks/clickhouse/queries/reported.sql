-- The calls of a period whose producer, provider or log stated a cost, those first that differ most from ours.
SELECT
    e.event_time AS ts,
    e.request_id AS request_id,
    if(e.model_used = '', e.model_sent, e.model_used) AS model,
    e.api_key_id AS api_key_id,
    toDecimal128(e.reported_cost_nano, 0) * toDecimal128('0.000000001', 9) AS reported_usd,
    toDecimal128(e.cost_nano, 0) * toDecimal128('0.000000001', 9) AS cost_usd,
    cost_usd - reported_usd AS difference_usd
FROM usage_events AS e FINAL
WHERE e.reported_cost_nano IS NOT NULL AND
    -- include: asked
ORDER BY abs(difference_usd) DESC NULLS FIRST, ts, e.event_id
LIMIT {top:UInt32}
