-- Rows of one organisation in a span of time that were corrected behind an offset: each hides the row it replaced.
SELECT count() AS n
FROM usage_events
WHERE org_id = {org:String} AND priced_partition = {partition:UInt16} AND revision > 0 AND priced_offset > {upto:Int64}
    AND event_time >= toDateTime64({from:Int64}, 6, 'UTC')
    AND (event_time < toDateTime64({until:Int64}, 6, 'UTC') + INTERVAL 5 MINUTE OR (event_time, org_id, event_id) IN
        (SELECT event_time, org_id, event_id FROM usage_events WHERE org_id = {org:String} AND flags = 'ahead' AND event_time >= toDateTime64({from:Int64}, 6, 'UTC')))
