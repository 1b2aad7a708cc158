-- What was spent between two moments, and what of it is not known; one row.
SELECT
    count() AS calls,
    -- include: cost
FROM usage_events AS e FINAL
WHERE e.status != 'VOID' AND (empty({orgs:Array(String)}) OR has({orgs:Array(String)}, e.org_id))
    AND ({user_id:String} = '' OR e.user_id = {user_id:String})
    AND e.event_time >= {since:DateTime64(6, 'UTC')} AND e.event_time < {until:DateTime64(6, 'UTC')}
