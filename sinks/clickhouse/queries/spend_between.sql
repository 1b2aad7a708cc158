-- What was spent between two moments, and what of it is not known; one row.
SELECT
    count() AS calls,
    -- include: cost
FROM usage_events AS e FINAL
WHERE e.status != 'VOID' AND ({org_id:String} = '' OR e.org_id = {org_id:String})
    AND e.event_time >= {since:DateTime64(6, 'UTC')} AND e.event_time < {until:DateTime64(6, 'UTC')}
