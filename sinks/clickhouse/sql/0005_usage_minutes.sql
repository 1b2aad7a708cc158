-- Rollup per minute: absolute values recomputed from the ledger, the newest wins. Read with FINAL and calls > 0 (a
-- group that a correction emptied is a row of zeros). The live edge is not here yet: read it from `usage`.
CREATE TABLE IF NOT EXISTS usage_minutes
(
    minute             DateTime('UTC') CODEC(DoubleDelta, ZSTD(1)),
    org_id             LowCardinality(String),
    api_key_id         LowCardinality(String),
    provider           LowCardinality(String),
    model              LowCardinality(String),
    billing_scope      LowCardinality(String),
    calls              UInt64 CODEC(T64, ZSTD(1)),
    errors             UInt64 CODEC(T64, ZSTD(1)),
    blocked            UInt64 CODEC(T64, ZSTD(1)),
    unpriced           UInt64 CODEC(T64, ZSTD(1)),            -- calls whose cost is unknown
    input_tokens       Int64 CODEC(T64, ZSTD(1)),
    cache_read_tokens  Int64 CODEC(T64, ZSTD(1)),
    cache_write_tokens Int64 CODEC(T64, ZSTD(1)),
    output_tokens      Int64 CODEC(T64, ZSTD(1)),
    reasoning_tokens   Int64 CODEC(T64, ZSTD(1)),
    cost_nano          Int64 CODEC(T64, ZSTD(1)),             -- of the calls whose cost is known
    at_risk_nano       Int64 CODEC(T64, ZSTD(1)),             -- estimate for the unpriced ones, never inside cost_nano
    cost_eur_nano      Int64 CODEC(T64, ZSTD(1)),
    cost_rub_nano      Int64 CODEC(T64, ZSTD(1)),
    computed_at        DateTime64(6, 'UTC') CODEC(DoubleDelta, ZSTD(1))
)
ENGINE = ReplacingMergeTree(computed_at)
PARTITION BY toYYYYMM(minute)
ORDER BY (minute, org_id, api_key_id, provider, model, billing_scope)
TTL greatest(minute, toDateTime(computed_at)) + INTERVAL {retention_minutes_days} DAY DELETE
SETTINGS ttl_only_drop_parts = 1, materialize_ttl_recalculate_only = 1
