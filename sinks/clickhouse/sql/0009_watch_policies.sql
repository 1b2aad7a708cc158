-- The policies that WATCH has read in a partition, as of a priced offset.
CREATE TABLE IF NOT EXISTS watch_policies
(
    priced_partition UInt16,
    policy_id        String,
    stamp            UInt64,
    deleted          UInt8,
    policy           String CODEC(ZSTD(1)),                   -- JSON
    written_at       DateTime64(3, 'UTC') DEFAULT now64(3, 'UTC')
)
ENGINE = ReplacingMergeTree(stamp)
ORDER BY (priced_partition, policy_id)
