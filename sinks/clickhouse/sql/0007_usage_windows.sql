-- WATCH's cells: the totals of one scope in one bucket, as of a priced offset (`stamp`); the highest stamp wins.
-- cost_nano, at_risk_nano and the spend of other currencies are org-billed; byok_cost_nano is the users' own money.
-- What users' own keys take of calls (blocked ones left out) and tokens counts toward no limit of the organisation.
CREATE TABLE IF NOT EXISTS usage_windows
(
    level             LowCardinality(String),                 -- minute | hour | day | month
    bucket            DateTime('UTC') CODEC(DoubleDelta, ZSTD(1)),
    org_id            LowCardinality(String),
    scope             LowCardinality(String),
    name              String CODEC(ZSTD(1)),
    priced_partition  UInt16,
    stamp             UInt64 CODEC(ZSTD(1)),
    calls             Int64 CODEC(T64, ZSTD(1)),
    errors            Int64 CODEC(T64, ZSTD(1)),
    blocked           Int64 CODEC(T64, ZSTD(1)),
    unknown_model     Int64 CODEC(T64, ZSTD(1)),
    input_tokens      Int64 CODEC(T64, ZSTD(1)),
    cache_read_tokens Int64 CODEC(T64, ZSTD(1)),
    output_tokens     Int64 CODEC(T64, ZSTD(1)),
    cost_nano         Int64 CODEC(T64, ZSTD(1)),
    byok_cost_nano    Int64 CODEC(T64, ZSTD(1)),
    at_risk_nano      Int64 CODEC(T64, ZSTD(1)),
    spend_eur_nano    Int64 CODEC(T64, ZSTD(1)),
    spend_rub_nano    Int64 CODEC(T64, ZSTD(1)),
    byok_calls        Int64 DEFAULT 0 CODEC(T64, ZSTD(1)),
    byok_tokens       Int64 DEFAULT 0 CODEC(T64, ZSTD(1)),
    peak_minute_nano  Int64 CODEC(T64, ZSTD(1)),
    peak_hour_nano    Int64 CODEC(T64, ZSTD(1)),
    written_at        DateTime('UTC') DEFAULT now('UTC') CODEC(DoubleDelta, ZSTD(1))
)
ENGINE = ReplacingMergeTree(stamp)
PARTITION BY toYYYYMM(bucket)
ORDER BY (level, bucket, org_id, scope, name)
TTL greatest(bucket, written_at) + INTERVAL {retention_windows_days} DAY DELETE
SETTINGS ttl_only_drop_parts = 1, materialize_ttl_recalculate_only = 1
