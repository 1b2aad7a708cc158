-- Per source partition the first offset that records of one partition of usage.priced speak of, from an offset on.
SELECT source_partition, min(first_offset) AS first_offset
FROM ledger_coverage
WHERE priced_partition = {partition:UInt16} AND priced_offset >= {begin:UInt64}
GROUP BY source_partition
