-- What is known of a day from one source of a provider's bill: written after its lines, so that an import that dies in
-- between changes nothing. The highest revision counts, as a whole: a later import replaces the day.
CREATE TABLE IF NOT EXISTS provider_cost_days
(
    provider    LowCardinality(String),
    account     LowCardinality(String),
    source      LowCardinality(String),
    day         Date,
    revision    UInt64,
    lines       UInt32,
    content     String CODEC(ZSTD(1)),                        -- hash over the lines
    is_whole    Bool,                                         -- false: the bill has only a part of the day
    is_final    Bool,
    file_name   String CODEC(ZSTD(1)),
    fetched_at  DateTime64(3, 'UTC'),
    imported_at DateTime64(3, 'UTC') DEFAULT now64(3, 'UTC')
)
ENGINE = ReplacingMergeTree(revision)
ORDER BY (provider, account, source, day)
TTL day + INTERVAL {retention_bills_days} DAY DELETE
