-- The state of each alert that notify has taken: open, acknowledged, resolved; who was told. A copy of usage.notices.
CREATE TABLE IF NOT EXISTS alert_states
(
    id              String,
    state           LowCardinality(String),
    held            LowCardinality(String),                   -- why nobody was told at once: muted, repeat, old, storm, cap
    told            String,                                   -- "ops-mail: sent, hook: pending (3 attempts: it answered 500)"
    resolution      String,
    acknowledged_by String,
    opened_at       DateTime64(3, 'UTC'),
    resolved_at     Nullable(DateTime64(3, 'UTC')),
    written_at      DateTime64(6, 'UTC')
)
ENGINE = ReplacingMergeTree(written_at)
ORDER BY id
TTL toDateTime(opened_at) + INTERVAL {retention_alerts_days} DAY DELETE
