"""Bills of providers: read, kept, fetched, and compared with the ledger."""
