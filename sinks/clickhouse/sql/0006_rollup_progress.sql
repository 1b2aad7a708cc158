-- Every row inserted before `covered_until` is in usage_minutes; the next run looks at later ones only.
CREATE TABLE IF NOT EXISTS rollup_progress
(
    name          LowCardinality(String),
    covered_until DateTime64(6, 'UTC'),
    computed_at   DateTime64(6, 'UTC') DEFAULT now64(6, 'UTC')
)
ENGINE = ReplacingMergeTree(computed_at)
ORDER BY name
