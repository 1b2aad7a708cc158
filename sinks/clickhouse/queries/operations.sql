-- What each operation cost in a period, dearest first; cost_usd has 2 decimals, half up. The first row, `total` = 1, is the
-- whole period of the same reading: a second one would already know later calls.
SELECT
    grouping(operation_name) = 1 AS total,
    e.operation_name AS operation_name,
    count() AS calls,
    sum(toInt128(e.input_tokens)) AS prompt_tokens,
    sum(toInt128(e.output_tokens)) AS output_tokens,
    sum(greatest(toInt128(e.input_tokens) + e.output_tokens, ifNull(e.total_tokens, 0))) AS total_tokens,
    toDecimal128(intDiv(total_nano + 5000000, 10000000), 0) * toDecimal128('0.01', 2) AS cost_usd,
    -- include: doubts
    -- include: value
    -- include: cost
FROM usage_events AS e FINAL
WHERE
    -- include: asked
GROUP BY GROUPING SETS ((operation_name), ())
ORDER BY total DESC, total_nano DESC NULLS LAST, operation_name
