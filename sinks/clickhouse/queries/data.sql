-- One page of the calls of a period, the newest first, with the tracking token that each came under.
SELECT
    toString(e.event_id) AS id,
    e.event_time AS ts,
    arrayFirst(t -> t.key = 'tracking_token', e.tags).value AS tracking_token,
    e.provider AS ai_provider,
    if(e.model_used = '', e.model_sent, e.model_used) AS ai_model,
    e.input_tokens AS prompt_tokens,
    e.output_tokens AS completion_tokens,
    greatest(toInt128(e.input_tokens) + e.output_tokens, ifNull(e.total_tokens, 0)) AS total_tokens,
    toDecimal128(e.cost_nano, 0) * toDecimal128('0.000000001', 9) AS cost_usd,
    e.price_status AS price_status,
    e.status AS call_status,
    e.user_id AS user,
    e.api_key_id AS api_key_id,
    e.org_id AS org_id
FROM usage_events AS e FINAL
WHERE ({token:String} = '' OR arrayExists(t -> t.key = 'tracking_token' AND t.value = {token:String}, e.tags)) AND
    -- include: asked
ORDER BY e.event_time DESC, id
LIMIT {limit:UInt32} OFFSET {offset:UInt64}
