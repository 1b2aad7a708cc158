-- What the cost of one scope in a span of time is made of, dearest first: parts of the bill by model, key and address.
SELECT
    if(e.model_used = '', e.model_sent, e.model_used) AS model,
    e.api_key_id AS api_key_id,
    e.client_ip AS client_ip,
    piece.1 AS part,
    sum(toInt128(piece.2)) AS cost_nano,
    sum(sum(toInt128(piece.2))) OVER () AS total_nano
FROM usage_events AS e FINAL
ARRAY JOIN [
    ('input', ifNull(e.cost_input_nano, 0)),
    ('cached input', ifNull(e.cost_cache_read_nano, 0)),
    ('cache writes', ifNull(e.cost_cache_write_nano, 0)),
    ('output', ifNull(e.cost_output_nano, 0)),
    ('other', ifNull(e.cost_other_nano, 0)),
    ('without a known price', ifNull(e.at_risk_nano, 0))
] AS piece
WHERE e.event_time >= {since:DateTime64(6, 'UTC')} AND e.event_time < {until:DateTime64(6, 'UTC')}
    AND e.status != 'VOID' AND e.org_id = {org_id:String}
    -- include: scope
GROUP BY model, api_key_id, client_ip, part
HAVING cost_nano > 0
ORDER BY cost_nano DESC, model, part, api_key_id, client_ip
LIMIT {top:UInt32}
SETTINGS max_execution_time = 2
