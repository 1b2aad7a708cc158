-- The tracking tokens of usage that clients push. They are no secrets: they say whose usage it is.
CREATE VIEW IF NOT EXISTS tracking_tokens AS
SELECT
    JSONExtractString(value, 'id') AS id,
    JSONExtractString(value, 'org_id') AS org_id,
    JSONExtractString(value, 'name') AS name,
    JSONExtractString(value, 'value') AS token,
    JSONExtractBool(value, 'active') AS active,
    parseDateTime64BestEffortOrZero(JSONExtractString(value, 'created_at'), 6, 'UTC') AS created_at
FROM registry FINAL
WHERE startsWith(key, 'token:') AND value != ''
