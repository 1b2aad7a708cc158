-- Where the rollup stands, by the server's clock; created_at is when the ledger was set up.
SELECT
    now64(6, 'UTC') AS now,
    (SELECT max(covered_until) FROM rollup_progress WHERE name = 'usage_minutes') AS covered_until,
    (SELECT min(changed_at) FROM schema_migrations) AS created_at
