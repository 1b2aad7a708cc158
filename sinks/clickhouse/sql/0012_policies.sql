-- The policies in force, with plain names.
CREATE VIEW IF NOT EXISTS policies AS
SELECT
    policy_id,
    JSONExtractString(policy, 'org_id') AS org_id,
    JSONExtractString(policy, 'scope') AS scope,
    JSONExtractString(policy, 'name') AS name,
    JSONExtractString(policy, 'currency') AS currency,
    JSONExtract(policy, 'daily_limit_micro', 'Nullable(Int64)') AS daily_limit_micro,
    JSONExtract(policy, 'monthly_limit_micro', 'Nullable(Int64)') AS monthly_limit_micro,
    policy,
    written_at
FROM watch_policies FINAL
WHERE deleted = 0
