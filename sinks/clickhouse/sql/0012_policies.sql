-- The policies in force, with plain names; documents of before a field was known show its default.
CREATE VIEW IF NOT EXISTS policies AS
SELECT
    policy_id,
    JSONExtractString(policy, 'org_id') AS org_id,
    JSONExtractString(policy, 'scope') AS scope,
    JSONExtractString(policy, 'name') AS name,
    if(JSONHas(policy, 'applies'), JSONExtractString(policy, 'applies'), 'pool') AS applies,
    JSONExtractString(policy, 'currency') AS currency,
    if(JSONHas(policy, 'timezone'), JSONExtractString(policy, 'timezone'), 'UTC') AS timezone,
    JSONExtract(policy, 'daily_limit_micro', 'Nullable(Int64)') AS daily_limit_micro,
    JSONExtract(policy, 'monthly_limit_micro', 'Nullable(Int64)') AS monthly_limit_micro,
    JSONExtract(policy, 'limits', 'Array(Tuple(period String, measure String, amount Int64, hours Nullable(Int64)))') AS limits,
    if(JSONHas(policy, 'warn_threshold_pct'), JSONExtractInt(policy, 'warn_threshold_pct'), 80) AS warn_threshold_pct,
    JSONExtract(policy, 'alert_pcts', 'Array(Int64)') AS alert_pcts,
    JSONExtract(policy, 'alert_remaining_micro', 'Nullable(Int64)') AS alert_remaining_micro,
    policy,
    written_at
FROM watch_policies FINAL
WHERE deleted = 0 AND JSONHas(policy, 'scope')
