-- One page of the calls of a period, oldest first: those after the call (`after_time`, `after_org`, `after_id`).
SELECT e.* EXCEPT (minute, version, inserted_at)
FROM usage AS e
WHERE (e.event_time, toString(e.org_id), toString(e.event_id))
        > ({after_time:DateTime64(6, 'UTC')}, {after_org:String}, {after_id:String}) AND
    -- include: asked
ORDER BY e.event_time, toString(e.org_id), toString(e.event_id)
LIMIT {page:UInt32}
