-- What the rules about identity remember of a key, an address or an organisation, as of a priced offset (`stamp`).
CREATE TABLE IF NOT EXISTS watch_profiles
(
    priced_partition UInt16,
    org_id           LowCardinality(String),
    scope            LowCardinality(String),
    name             String CODEC(ZSTD(1)),
    stamp            UInt64 CODEC(ZSTD(1)),
    state            String CODEC(ZSTD(1)),                   -- 64-bit integers, little-endian
    written_at       DateTime('UTC') DEFAULT now('UTC') CODEC(DoubleDelta, ZSTD(1))
)
ENGINE = ReplacingMergeTree(stamp)
ORDER BY (priced_partition, org_id, scope, name)
TTL written_at + INTERVAL 62 DAY DELETE
