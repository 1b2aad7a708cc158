-- What each operation cost in a period, dearest first; cost_usd has 2 decimals, half up.
SELECT
    e.operation_name AS operation_name,
    count() AS calls,
    sum(greatest(toInt128(e.input_tokens) + e.output_tokens, ifNull(e.total_tokens, 0))) AS total_tokens,
    toDecimal128(intDiv(total_nano + 5000000, 10000000), 0) * toDecimal128('0.01', 2) AS cost_usd,
    -- include: cost
FROM usage_events AS e FINAL
WHERE
    -- include: asked
GROUP BY operation_name
ORDER BY total_nano DESC NULLS LAST, operation_name
