"""LEDGER: priced records become a set of rows in ClickHouse."""
