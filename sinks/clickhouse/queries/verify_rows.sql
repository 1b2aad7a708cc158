-- The ledger rows of a piece of event time that arrived at {since} or later: FINAL keeps the first delivery.
SELECT
    toString(event_id) AS event_id, event_time, org_id, src_partition, toInt64(src_offset) AS src_offset,
    revision, status, cost_nano, priced_partition, toInt64(priced_offset) AS priced_offset
FROM usage_events FINAL
WHERE event_time >= {from:DateTime64(6, 'UTC')} AND event_time < {until:DateTime64(6, 'UTC')}
    AND received_at >= {since:DateTime64(6, 'UTC')}
