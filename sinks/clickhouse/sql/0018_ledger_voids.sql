-- Rows that were taken out of the ledger on purpose, by identity: the same id had come with another time, and the first
-- time counts. The row itself is deleted from usage_events; this says what it was, so that it is not missed.
CREATE TABLE IF NOT EXISTS ledger_voids
(
    event_time       DateTime64(6, 'UTC'),
    org_id           LowCardinality(String),
    event_id         UUID,
    kept_time        DateTime64(6, 'UTC'),                    -- the time under which the event stays in the ledger
    src_partition    UInt16,
    src_offset       UInt64,
    priced_partition UInt16,
    priced_offset    UInt64,
    cost_nano        Nullable(Int64),
    reason           LowCardinality(String),
    voided_at        DateTime64(3, 'UTC') DEFAULT now64(3, 'UTC')
)
ENGINE = ReplacingMergeTree(voided_at)
ORDER BY (event_time, org_id, event_id)
