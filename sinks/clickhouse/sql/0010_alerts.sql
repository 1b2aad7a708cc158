-- One row per alert. Only `event` (the whole CloudEvent, byte for byte) and `appended_at` (append time of its record)
-- are written; the rest is read out of it. Sent again after a restart it has the same id: the first append stays.
CREATE TABLE IF NOT EXISTS alerts
(
    event       String CODEC(ZSTD(1)),
    appended_at DateTime64(3, 'UTC'),
    id          String DEFAULT JSONExtractString(event, 'id'),
    received_at DateTime64(3, 'UTC') DEFAULT parseDateTime64BestEffortOrZero(JSONExtractString(event, 'time'), 3, 'UTC'),
    kind        LowCardinality(String) DEFAULT JSONExtractString(event, 'data', 'kind'),
    severity    LowCardinality(String) DEFAULT JSONExtractString(event, 'data', 'severity'),
    org_id      LowCardinality(String) DEFAULT JSONExtractString(event, 'data', 'org_id'),
    scope       LowCardinality(String) DEFAULT JSONExtractString(event, 'data', 'scope'),
    name        String DEFAULT JSONExtractString(event, 'data', 'name'),
    period      String DEFAULT JSONExtractString(event, 'data', 'period'),
    text        String DEFAULT JSONExtractString(event, 'data', 'text'),
    data        String DEFAULT JSONExtractRaw(event, 'data') CODEC(ZSTD(1)),
    version     UInt64 DEFAULT 18446744073709551615 - toUnixTimestamp64Milli(appended_at)
)
ENGINE = ReplacingMergeTree(version)
PARTITION BY toYYYYMM(received_at)
ORDER BY (received_at, id)
TTL toDateTime(appended_at) + INTERVAL {retention_alerts_days} DAY DELETE
