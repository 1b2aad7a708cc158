-- One row: what a period cost. usd_est is what is known; unpriced calls and what they may cost stand beside it.
SELECT
    count() AS calls,
    sum(toInt128(e.input_tokens)) AS prompt_tokens,
    sum(toInt128(e.output_tokens)) AS output_tokens,
    toDecimal128(roundBankers(toDecimal128(sumIf(toInt128(ifNull(e.cost_nano, 0)), e.billing_scope = 'USER'), 0) * toDecimal128('0.000000001', 9), 4), 4) AS usd_user_billed,
    -- include: doubts
    -- include: value
    -- include: cost
FROM usage_events AS e FINAL
WHERE
    -- include: asked
