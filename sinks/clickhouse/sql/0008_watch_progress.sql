-- The last priced offset that WATCH has folded into its cells, per partition; restart goes on behind it.
CREATE TABLE IF NOT EXISTS watch_progress
(
    priced_partition UInt16,
    applied          Int64,
    stamp            UInt64,
    state            String CODEC(ZSTD(1)),                   -- JSON
    written_at       DateTime64(3, 'UTC') DEFAULT now64(3, 'UTC')
)
ENGINE = ReplacingMergeTree(stamp)
ORDER BY priced_partition
