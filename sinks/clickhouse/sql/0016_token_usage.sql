-- A billing page's table, one row per call, void ones left out. An unknown cost is NULL, never 0.
CREATE VIEW IF NOT EXISTS token_usage AS
SELECT
    user_id,
    agent AS agent_id,
    provider AS ai_provider,
    model AS ai_model,
    input_tokens AS prompt_tokens,
    output_tokens AS completion_tokens,
    input_tokens + output_tokens AS total_tokens,
    toDecimal128(cost_nano, 0) * toDecimal128('0.000000001', 9) AS cost_usd,
    toDecimal128(cost_rub_nano, 0) * toDecimal128('0.000000001', 9) AS cost_rub,
    event_time AS created_at
FROM usage_events FINAL
WHERE status != 'VOID'
