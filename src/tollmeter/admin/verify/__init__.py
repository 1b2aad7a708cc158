"""Does every record of the log stand in the ledger exactly once? Counted from both ends, nothing by subtraction."""
