-- Which part of the source log each priced record covers, as PRICE stated it: gaps are read here, since merges of
-- usage_events remove duplicate rows and raw offsets prove nothing. Written again, it is the same row.
CREATE TABLE IF NOT EXISTS ledger_coverage
(
    priced_partition UInt16,
    priced_offset    UInt64 CODEC(DoubleDelta, ZSTD(1)),
    source_partition UInt16,
    first_offset     UInt64 CODEC(DoubleDelta, ZSTD(1)),
    last_offset      UInt64 CODEC(DoubleDelta, ZSTD(1)),
    records          UInt32 CODEC(T64, ZSTD(1)),              -- of the source, read by that pass
    rejected         UInt32 CODEC(T64, ZSTD(1)),              -- of those, sent to the dead letters
    rows             UInt32 CODEC(T64, ZSTD(1)),              -- of those, carried by this priced record
    price_book       LowCardinality(String),
    boot             LowCardinality(String),
    inserted_at      DateTime64(3, 'UTC') DEFAULT now64(3, 'UTC') CODEC(DoubleDelta, ZSTD(1))
)
ENGINE = ReplacingMergeTree(inserted_at)
ORDER BY (priced_partition, priced_offset, source_partition)
TTL toDateTime(inserted_at) + INTERVAL {retention_coverage_days} DAY DELETE
