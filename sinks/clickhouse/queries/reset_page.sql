-- Ids of calls of organisations that are not taken back yet, those after `after`.
SELECT DISTINCT toString(event_id) AS id
FROM usage_events FINAL
WHERE status != 'VOID' AND has({orgs:Array(String)}, org_id) AND toString(event_id) > {after:String}
ORDER BY id
LIMIT {page:UInt32}
