-- Offsets that were gone before they were read: declared, never silent. A log made anew has the name and offsets of the
-- one before.
CREATE TABLE IF NOT EXISTS ledger_gaps
(
    stage            LowCardinality(String),                  -- ledger | watch
    priced_partition UInt16,
    first_offset     UInt64,
    last_offset      UInt64,
    reason           String,
    found_at         DateTime64(3, 'UTC') DEFAULT now64(3, 'UTC'),
    topic            LowCardinality(String),
    topic_id         String                                   -- "" where the broker gives none
)
ENGINE = ReplacingMergeTree(found_at)
PRIMARY KEY (stage, priced_partition, first_offset)
ORDER BY (stage, priced_partition, first_offset, topic, topic_id)
