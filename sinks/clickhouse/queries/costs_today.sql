-- A day's cost per model and key, dearest first, and one row of totals (`total` = 1) from the same reading.
SELECT
    grouping(model, api_key_id) = 3 AS total,
    if(e.model_used = '', e.model_sent, e.model_used) AS model,
    e.api_key_id AS api_key_id,
    count() AS calls,
    sum(toInt128(e.input_tokens)) AS prompt_tokens,
    sum(toInt128(e.output_tokens)) AS output_tokens,
    toDecimal128(roundBankers(toDecimal128(sum(toInt128(e.cost_nano)), 0) * toDecimal128('0.000000001', 9), 4), 4) AS usd_est,
    countIf(e.cost_nano IS NULL) AS unpriced,
    toDecimal128(roundBankers(toDecimal128(sum(toInt128(e.at_risk_nano)), 0) * toDecimal128('0.000000001', 9), 4), 4) AS usd_at_risk
FROM usage_events AS e FINAL
WHERE e.status != 'VOID' AND event_time >= toDateTime64({day:Date}, 6, 'UTC') AND event_time < toDateTime64({day:Date} + 1, 6, 'UTC')
GROUP BY GROUPING SETS ((model, api_key_id), ())
ORDER BY total, sum(toInt128(e.cost_nano)) DESC NULLS LAST, model, api_key_id
