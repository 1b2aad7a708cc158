-- Rows of one organisation in a span of time that were corrected behind an offset: each hides the row it replaced.
SELECT count() AS n
FROM usage_events
WHERE org_id = {org:String} AND priced_partition = {partition:UInt16} AND revision > 0 AND priced_offset > {upto:Int64}
    AND event_time >= toDateTime64({from:Int64}, 6, 'UTC')
    AND (event_time < toDateTime64({until:Int64}, 6, 'UTC') + INTERVAL 5 MINUTE OR flags = 'ahead')
