-- The membership in force: users, and groups inside other groups. WATCH keeps both beside the policies.
CREATE VIEW IF NOT EXISTS members AS
SELECT
    JSONExtractString(policy, 'org_id') AS org_id,
    JSONExtractString(policy, 'kind') AS kind,
    JSONExtractString(policy, 'name') AS name,
    JSONExtract(policy, 'groups', 'Array(String)') AS groups,
    written_at
FROM watch_policies FINAL
WHERE deleted = 0 AND JSONHas(policy, 'kind')
