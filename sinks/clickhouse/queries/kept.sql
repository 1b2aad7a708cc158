-- Since when the ledger has taken calls: a restored one is older than its tables.
SELECT
    least(
        (SELECT min(toDateTime64(changed_at, 3, 'UTC')) FROM schema_migrations),
        (SELECT ifNull(minOrNull(toDateTime64(received_at, 3, 'UTC')), now64(3, 'UTC')) FROM usage_events)
    ) AS begun
