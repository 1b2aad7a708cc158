-- One row: what a period cost. usd_est is what is known; unpriced calls and what they may cost stand beside it.
SELECT
    count() AS calls,
    sum(toInt128(e.input_tokens)) AS prompt_tokens,
    sum(toInt128(e.output_tokens)) AS output_tokens,
    toDecimal128(roundBankers(toDecimal128(sum(toInt128(ifNull(e.cost_nano, 0))), 0) * toDecimal128('0.000000001', 9), 4), 4) AS usd_est,
    toDecimal128(roundBankers(toDecimal128(sumIf(toInt128(ifNull(e.cost_nano, 0)), e.billing_scope = 'USER'), 0) * toDecimal128('0.000000001', 9), 4), 4) AS usd_user_billed,
    countIf(e.cost_nano IS NULL) AS unpriced,
    toDecimal128(roundBankers(toDecimal128(sum(toInt128(ifNull(e.at_risk_nano, 0))), 0) * toDecimal128('0.000000001', 9), 4), 4) AS usd_at_risk,
    countIf(e.status = 'BLOCKED') AS blocked
FROM usage_events AS e FINAL
WHERE e.status != 'VOID' AND event_time >= {since:DateTime64(6, 'UTC')} AND event_time < {until:DateTime64(6, 'UTC')}
