-- Parts of the logs that were gone before a stage read them, as it declared them.
SELECT stage, priced_partition, first_offset, last_offset, reason, found_at
FROM ledger_gaps FINAL
ORDER BY found_at, stage, priced_partition, first_offset
