-- Hours of organisations that hold rows of a partition which were corrected behind an offset, by when they were charged.
SELECT DISTINCT
    toString(org_id) AS org_id,
    toInt64(intDiv(toUnixTimestamp(least(event_time, toDateTime64(received_at, 6, 'UTC'))), 3600)) AS hour
FROM usage_events
WHERE priced_partition = {partition:UInt16} AND revision > 0 AND toInt64(priced_offset) > {applied:Int64}
    AND event_time >= toDateTime({from:UInt32}, 'UTC')
