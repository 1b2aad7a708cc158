-- A billing page's table, one row per call, void ones left out. A stated total that is larger stands. An unknown cost is NULL, never 0.
CREATE OR REPLACE VIEW token_usage AS
SELECT
    user_id,
    agent AS agent_id,
    provider AS ai_provider,
    model AS ai_model,
    input_tokens AS prompt_tokens,
    output_tokens AS completion_tokens,
    greatest(e.input_tokens + e.output_tokens, ifNull(e.total_tokens, 0)) AS total_tokens,
    toDecimal128(cost_nano, 0) * toDecimal128('0.000000001', 9) AS cost_usd,
    toDecimal128(cost_rub_nano, 0) * toDecimal128('0.000000001', 9) AS cost_rub,
    event_time AS created_at
FROM usage_events AS e FINAL
WHERE status != 'VOID'
