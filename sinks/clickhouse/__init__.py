"""ClickHouse: inserts, migrations, named queries, the rollup."""
