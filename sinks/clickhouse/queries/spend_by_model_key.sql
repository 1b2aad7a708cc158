-- What each model cost through each key in a period, dearest first; usd_est is NULL where no call has a known cost.
SELECT
    if(e.model_used = '', e.model_sent, e.model_used) AS model,
    e.api_key_id AS api_key_id,
    count() AS calls,
    sum(toInt128(e.input_tokens)) AS prompt_tokens,
    sum(toInt128(e.output_tokens)) AS output_tokens,
    toDecimal128(roundBankers(toDecimal128(sum(toInt128(e.cost_nano)), 0) * toDecimal128('0.000000001', 9), 4), 4) AS usd_est
FROM usage_events AS e FINAL
WHERE e.status != 'VOID' AND event_time >= {since:DateTime64(6, 'UTC')} AND event_time < {until:DateTime64(6, 'UTC')}
GROUP BY model, api_key_id
ORDER BY sum(toInt128(e.cost_nano)) DESC NULLS LAST, model, api_key_id
