-- The dearest calls of a period; calls of unknown cost come last.
SELECT
    e.event_time AS ts,
    e.model_sent AS model_sent,
    e.model_used AS model_used,
    e.input_tokens AS pt,
    e.output_tokens AS ot,
    toDecimal128(e.cost_nano, 0) * toDecimal128('0.000000001', 9) AS est_cost,
    nullIf(e.client_ip, '') AS client_ip,
    e.request_id AS request_id,
    e.api_key_id AS api_key_id,
    e.org_id AS org_id,
    e.cost_nano IS NULL AND NOT (e.status = 'ERROR' AND e.price_status = 'NO_USAGE') AS unpriced,
    toDecimal128(e.at_risk_nano, 0) * toDecimal128('0.000000001', 9) AS usd_at_risk
FROM usage_events AS e FINAL
WHERE
    -- include: asked
ORDER BY e.cost_nano DESC NULLS LAST, ts, e.event_id
LIMIT {top:UInt32}
