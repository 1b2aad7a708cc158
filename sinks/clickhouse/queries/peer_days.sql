-- Keys by the model that they called most in the last 24 hours up to an hour: calls of known cost and what they cost, in
-- that day and in the four weeks before it.
SELECT org_id, argMax(model, model_calls) AS main, api_key_id AS name,
    toInt64(sum(day_nano)) AS cost_nano, toInt64(sum(model_calls)) AS calls,
    toInt64(sum(past_nano)) AS past_cost_nano, toInt64(sum(past_calls_of)) AS past_calls
FROM
(
    SELECT org_id, api_key_id, model,
        sumIf(toInt128(cost_nano), minute >= {until:DateTime('UTC')} - INTERVAL 1 DAY) AS day_nano,
        sumIf(toInt64(calls - unpriced), minute >= {until:DateTime('UTC')} - INTERVAL 1 DAY) AS model_calls,
        sumIf(toInt128(cost_nano), minute < {until:DateTime('UTC')} - INTERVAL 1 DAY) AS past_nano,
        sumIf(toInt64(calls - unpriced), minute < {until:DateTime('UTC')} - INTERVAL 1 DAY) AS past_calls_of
    FROM usage_minutes FINAL
    WHERE minute >= {until:DateTime('UTC')} - INTERVAL 29 DAY AND minute < {until:DateTime('UTC')}
        AND api_key_id != '' AND calls > 0
    GROUP BY org_id, api_key_id, model
)
GROUP BY org_id, api_key_id
HAVING calls > 0
ORDER BY org_id, main, name
