-- The keys of the server, without their secrets, and when each was last used, to about an hour (NULL = never).
CREATE VIEW IF NOT EXISTS server_keys AS
SELECT
    JSONExtractString(k.value, 'id') AS id,
    JSONExtractString(k.value, 'org_id') AS org_id,
    JSONExtractString(k.value, 'name') AS name,
    JSONExtractString(k.value, 'role') AS role,
    JSONExtractBool(k.value, 'may_set_identity') AS may_set_identity,
    JSONExtractBool(k.value, 'active') AS active,
    parseDateTime64BestEffortOrZero(JSONExtractString(k.value, 'created_at'), 6, 'UTC') AS created_at,
    parseDateTime64BestEffortOrNull(JSONExtractString(u.value, 'at'), 6, 'UTC') AS used_at
FROM (SELECT value, substring(key, 5) AS id FROM registry FINAL WHERE startsWith(key, 'key:') AND value != '') AS k
LEFT JOIN (SELECT value, substring(key, 6) AS id FROM registry FINAL WHERE startsWith(key, 'used:') AND value != '') AS u
    ON u.id = k.id
