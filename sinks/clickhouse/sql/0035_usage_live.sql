-- WATCH's live totals of scopes, one row a scope and bucket: what budgets and alerts go by, whatever the ledger is doing.
CREATE VIEW IF NOT EXISTS usage_live AS
SELECT
    w.level AS level, w.bucket AS bucket, w.org_id AS org_id, w.scope AS scope, w.name AS name,
    w.calls AS calls, w.errors AS errors, w.blocked AS blocked, w.unknown_model AS unpriced,
    w.input_tokens AS input_tokens, w.cache_read_tokens AS cache_read_tokens, w.output_tokens AS output_tokens,
    w.cost_nano AS cost_nano, w.byok_cost_nano AS byok_cost_nano, w.at_risk_nano AS at_risk_nano,
    w.spend_eur_nano AS spend_eur_nano, w.spend_rub_nano AS spend_rub_nano,
    w.byok_calls AS byok_calls, w.byok_tokens AS byok_tokens, w.written_at AS written_at
FROM usage_windows AS w FINAL
