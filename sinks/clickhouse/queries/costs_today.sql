-- A period's cost per model and key, dearest first, and one row of totals (`total` = 1) from the same reading.
SELECT
    grouping(model, api_key_id) = 3 AS total,
    if(e.model_used = '', e.model_sent, e.model_used) AS model,
    e.api_key_id AS api_key_id,
    count() AS calls,
    sum(toInt128(e.input_tokens)) AS prompt_tokens,
    sum(toInt128(e.output_tokens)) AS output_tokens,
    -- include: doubts
    -- include: value
    -- include: cost
FROM usage_events AS e FINAL
WHERE
    -- include: asked
GROUP BY GROUPING SETS ((model, api_key_id), ())
ORDER BY total, total_nano DESC NULLS LAST, model, api_key_id
