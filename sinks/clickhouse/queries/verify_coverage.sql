-- Parts of the source log that were read, as PRICE stated them, in order.
SELECT source_partition, first_offset, max(last_offset) AS last_offset
FROM ledger_coverage
GROUP BY source_partition, first_offset
ORDER BY source_partition, first_offset
