-- The ledger rows of some ids, whatever part of the log they came from.
SELECT
    toString(event_id) AS event_id, event_time, org_id, src_partition, toInt64(src_offset) AS src_offset,
    revision, status, cost_nano, priced_partition, toInt64(priced_offset) AS priced_offset
FROM usage_events FINAL
WHERE event_id IN {ids:Array(UUID)}
