-- One row when an event of this user is in the ledger.
SELECT 1 AS seen FROM usage_events WHERE org_id = {org:String} AND user_id = {user:String} LIMIT 1
