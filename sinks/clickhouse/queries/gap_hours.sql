-- Whose hours hold rows that stood at these offsets of a partition of usage.priced; by min(event_time, received_at).
-- A corrected row may have stood there before: it has the place of its correction now.
SELECT org_id, toInt64(intDiv(toUnixTimestamp(least(event_time, toDateTime64(received_at, 6, 'UTC'))), 3600)) AS hour
FROM usage_events
WHERE priced_partition = {partition:UInt16}
  AND (priced_offset BETWEEN {first:UInt64} AND {last:UInt64} OR revision > 0)
GROUP BY org_id, hour
ORDER BY org_id, hour
