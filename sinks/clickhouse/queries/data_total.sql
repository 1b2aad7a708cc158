-- One row: what the calls of a period under a tracking token, or all, come to.
SELECT
    count() AS calls,
    sum(toInt128(e.input_tokens)) AS prompt_tokens,
    sum(toInt128(e.output_tokens)) AS output_tokens,
    -- include: doubts
    -- include: value
    -- include: cost
FROM usage_events AS e FINAL
WHERE ({token:String} = '' OR arrayExists(t -> t.key = 'tracking_token' AND t.value = {token:String}, e.tags)) AND
    -- include: asked
