-- A copy of the topic usage.registry, the newest of a key wins: keys of the server (without what their secrets were made
-- into), tracking tokens, labels of provider keys. A row that was taken away is an empty value. Read with FINAL.
CREATE TABLE IF NOT EXISTS registry
(
    key        String CODEC(ZSTD(1)),
    value      String CODEC(ZSTD(1)),
    version    UInt64,
    written_at DateTime64(3, 'UTC') DEFAULT fromUnixTimestamp64Milli(toInt64(bitShiftRight(version, 20)), 'UTC')
)
ENGINE = ReplacingMergeTree(version)
ORDER BY key
