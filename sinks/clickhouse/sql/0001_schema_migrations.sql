-- What was applied here, when and from which text. The newest row of a name counts.
CREATE TABLE IF NOT EXISTS schema_migrations
(
    name       String,
    checksum   String,
    status     LowCardinality(String),                        -- in_progress | completed
    changed_at DateTime64(6, 'UTC') DEFAULT now64(6, 'UTC')
)
ENGINE = ReplacingMergeTree(changed_at)
ORDER BY name
