-- What the line says of itself in alerts of a week that nobody has closed, the newest first; of organisations only theirs.
SELECT received_at, kind, severity, org_id
FROM alert_list
WHERE state != 'resolved' AND received_at >= now() - INTERVAL 7 DAY
    AND kind IN ('verify_difference', 'gap', 'new_epoch', 'paused', 'dlq_flood')
    AND (empty({orgs:Array(String)}) OR has({orgs:Array(String)}, org_id))
ORDER BY received_at DESC, id
LIMIT 100
