-- Offsets of usage.priced that were gone before they were read: declared, never silent.
CREATE TABLE IF NOT EXISTS ledger_gaps
(
    stage            LowCardinality(String),                  -- ledger | watch
    priced_partition UInt16,
    first_offset     UInt64,
    last_offset      UInt64,
    reason           String,
    found_at         DateTime64(3, 'UTC') DEFAULT now64(3, 'UTC')
)
ENGINE = ReplacingMergeTree(found_at)
ORDER BY (stage, priced_partition, first_offset)
