-- Hours as sums of minutes. The last minutes follow when they are quiet.
CREATE VIEW IF NOT EXISTS usage_hourly AS
SELECT
    toStartOfHour(m.minute) AS hour, m.org_id AS org_id, m.api_key_id AS api_key_id, m.provider AS provider,
    m.model AS model, m.billing_scope AS billing_scope,
    sum(m.calls) AS calls, sum(m.errors) AS errors, sum(m.blocked) AS blocked, sum(m.unpriced) AS unpriced,
    sum(m.input_tokens) AS input_tokens, sum(m.cache_read_tokens) AS cache_read_tokens,
    sum(m.cache_write_tokens) AS cache_write_tokens, sum(m.output_tokens) AS output_tokens,
    sum(m.reasoning_tokens) AS reasoning_tokens,
    sum(toInt128(m.cost_nano)) AS cost_nano, sum(toInt128(m.at_risk_nano)) AS at_risk_nano,
    sum(toInt128(m.cost_eur_nano)) AS cost_eur_nano, sum(toInt128(m.cost_rub_nano)) AS cost_rub_nano
FROM usage_minutes AS m FINAL
WHERE m.calls > 0
GROUP BY hour, org_id, api_key_id, provider, model, billing_scope
