-- Minutes with plain names; the last ones follow when they are quiet. Money as in usage_hourly, from which it differs by
-- the length of its step alone: local days of zones that are off by half an hour are sums of it.
CREATE VIEW IF NOT EXISTS usage_minutely AS
SELECT
    m.minute AS minute, m.org_id AS org_id, m.api_key_id AS api_key_id, m.provider AS provider, m.model AS model,
    m.billing_scope AS billing_scope, m.calls AS calls, m.errors AS errors, m.blocked AS blocked, m.unpriced AS unpriced,
    m.input_tokens AS input_tokens, m.cache_read_tokens AS cache_read_tokens,
    m.cache_write_tokens AS cache_write_tokens, m.output_tokens AS output_tokens,
    m.reasoning_tokens AS reasoning_tokens,
    if(m.unpriced > 0 AND m.cost_nano = 0, NULL, m.cost_nano) AS cost_nano, m.at_risk_nano AS at_risk_nano,
    if((m.unpriced > 0 OR m.cost_nano > 0) AND m.cost_eur_nano = 0, NULL, m.cost_eur_nano) AS cost_eur_nano,
    if((m.unpriced > 0 OR m.cost_nano > 0) AND m.cost_rub_nano = 0, NULL, m.cost_rub_nano) AS cost_rub_nano,
    toDecimal128(if(m.unpriced > 0 AND m.cost_nano = 0, NULL, m.cost_nano), 0) * toDecimal128('0.000000001', 9) AS cost_usd,
    toDecimal128(m.at_risk_nano, 0) * toDecimal128('0.000000001', 9) AS at_risk_usd
FROM usage_minutes AS m FINAL
WHERE m.calls > 0
