-- The ledger rows that came from one partition of usage.priced, up to an offset: FINAL keeps the first delivery.
SELECT toString(event_id) AS event_id, event_time, org_id, src_partition, toInt64(src_offset) AS src_offset, cost_nano
FROM usage_events FINAL
WHERE priced_partition = {partition:UInt16} AND priced_offset < {end:UInt64}
