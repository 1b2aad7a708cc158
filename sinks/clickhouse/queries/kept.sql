-- For how many days the ledger keeps a call, and since when it has taken any: a restored one is older than its tables.
SELECT
    toUInt32OrZero(extract(create_table_query, 'toIntervalDay\\((\\d+)\\)')) AS days,
    least(
        (SELECT min(toDateTime64(changed_at, 3, 'UTC')) FROM schema_migrations),
        (SELECT ifNull(minOrNull(toDateTime64(received_at, 3, 'UTC')), now64(3, 'UTC')) FROM usage_events)
    ) AS begun
FROM system.tables
WHERE database = currentDatabase() AND name = 'usage_events'
