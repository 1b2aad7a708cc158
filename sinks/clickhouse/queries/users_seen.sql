-- Which of these users have an event in the ledger; it stops reading when all were found.
SELECT DISTINCT user_id
FROM usage_events FINAL
WHERE status != 'VOID' AND org_id = {org:String} AND has({users:Array(String)}, user_id)
LIMIT {count:UInt32}
