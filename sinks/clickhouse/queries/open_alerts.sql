-- Alerts of a week that nobody has closed yet, the newest first; of one user those about him alone.
SELECT id, received_at, kind, severity, org_id, scope, name, text, state
FROM alert_list
WHERE state != 'resolved' AND received_at >= now() - INTERVAL 7 DAY
    AND ({org_id:String} = '' OR org_id = {org_id:String})
    AND ({user_id:String} = '' OR (scope = 'user' AND name = {user_id:String}))
ORDER BY received_at DESC, id
LIMIT {top:UInt32}
