-- Statements of closed months as they were frozen, a number for each time that a month was closed; the latest state of each
-- counts: closed or reopened. `content` is the statement as JSON, `hash` the sha256 over it. Read with FINAL.
CREATE TABLE IF NOT EXISTS statements
(
    month      String,                                        -- 2026-11, days of UTC
    org_id     String,                                        -- '' = all organisations together
    number     UInt32,
    state      LowCardinality(String),
    reason     String CODEC(ZSTD(1)),
    content    String CODEC(ZSTD(1)),
    hash       String,
    written_at DateTime64(6, 'UTC')
)
ENGINE = ReplacingMergeTree(written_at)
ORDER BY (org_id, month, number)
