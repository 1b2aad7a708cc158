-- A gap may be in any topic, and a log made anew has the name and offsets of the one before.
ALTER TABLE ledger_gaps
    ADD COLUMN IF NOT EXISTS topic LowCardinality(String),
    ADD COLUMN IF NOT EXISTS topic_id String,                  -- "" where the broker gives none
    MODIFY ORDER BY (stage, priced_partition, first_offset, topic, topic_id)
