-- What each operation cost in a period, dearest first; 2 decimals, half up. An empty `provider` means all.
SELECT
    e.operation_name AS operation_name,
    count() AS calls,
    sum(toInt128(e.input_tokens) + e.output_tokens) AS total_tokens,
    toDecimal128(intDiv(sum(toInt128(e.cost_nano)) + 5000000, 10000000), 0) * toDecimal128('0.01', 2) AS cost_usd
FROM usage_events AS e FINAL
WHERE e.status != 'VOID' AND event_time >= {since:DateTime64(6, 'UTC')} AND event_time < {until:DateTime64(6, 'UTC')}
    AND ({provider:String} = '' OR e.provider = {provider:String})
GROUP BY operation_name
ORDER BY sum(toInt128(e.cost_nano)) DESC NULLS LAST, operation_name
