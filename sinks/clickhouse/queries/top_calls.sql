-- The dearest calls of a period; calls of unknown cost come last.
SELECT
    event_time AS ts,
    model_sent,
    model_used,
    input_tokens AS pt,
    output_tokens AS ot,
    toDecimal128(cost_nano, 0) * toDecimal128('0.000000001', 9) AS est_cost,
    client_ip,
    request_id,
    api_key_id
FROM usage_events FINAL
WHERE status != 'VOID' AND event_time >= {since:DateTime64(6, 'UTC')} AND event_time < {until:DateTime64(6, 'UTC')}
ORDER BY cost_nano DESC NULLS LAST, ts, event_id
LIMIT {top:UInt32}
