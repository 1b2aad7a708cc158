"""What leaves for good: ClickHouse inserts, migrations and named queries. Owns no rules."""
