-- Hours as sums of minutes; the last minutes follow when they are quiet. cost_usd is of the calls whose cost is known,
-- NULL where that is 0 beside others; the `unpriced` others are at_risk_usd, an estimate that is never inside cost_usd.
CREATE OR REPLACE VIEW usage_hourly AS
SELECT
    toStartOfHour(m.minute) AS hour, m.org_id AS org_id, m.api_key_id AS api_key_id, m.provider AS provider,
    m.model AS model, m.billing_scope AS billing_scope,
    sum(m.calls) AS calls, sum(m.errors) AS errors, sum(m.blocked) AS blocked, sum(m.unpriced) AS unpriced,
    sum(m.input_tokens) AS input_tokens, sum(m.cache_read_tokens) AS cache_read_tokens,
    sum(m.cache_write_tokens) AS cache_write_tokens, sum(m.output_tokens) AS output_tokens,
    sum(m.reasoning_tokens) AS reasoning_tokens,
    if(unpriced > 0 AND sum(toInt128(m.cost_nano)) = 0, NULL, sum(toInt128(m.cost_nano))) AS cost_nano,
    sum(toInt128(m.at_risk_nano)) AS at_risk_nano,
    if((unpriced > 0 OR cost_nano > 0) AND sum(toInt128(m.cost_eur_nano)) = 0, NULL, sum(toInt128(m.cost_eur_nano))) AS cost_eur_nano,
    if((unpriced > 0 OR cost_nano > 0) AND sum(toInt128(m.cost_rub_nano)) = 0, NULL, sum(toInt128(m.cost_rub_nano))) AS cost_rub_nano,
    toDecimal128(cost_nano, 0) * toDecimal128('0.000000001', 9) AS cost_usd,
    toDecimal128(at_risk_nano, 0) * toDecimal128('0.000000001', 9) AS at_risk_usd
FROM usage_minutes AS m FINAL
WHERE m.calls > 0
GROUP BY hour, org_id, api_key_id, provider, model, billing_scope
