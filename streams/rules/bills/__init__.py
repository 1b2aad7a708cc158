"""What a provider's bill says beside what the ledger says."""
