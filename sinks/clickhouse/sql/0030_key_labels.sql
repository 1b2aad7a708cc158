-- What people call provider keys, by the id that calls carry. org_id '*': where the organisation has no label of its own.
CREATE VIEW IF NOT EXISTS key_labels AS
SELECT
    JSONExtractString(value, 'org_id') AS org_id,
    JSONExtractString(value, 'api_key_id') AS api_key_id,
    JSONExtractString(value, 'label') AS label,
    JSONExtractString(value, 'owner') AS owner,
    JSONExtractString(value, 'cost_centre') AS cost_centre,
    written_at
FROM registry FINAL
WHERE startsWith(key, 'label:') AND value != ''
