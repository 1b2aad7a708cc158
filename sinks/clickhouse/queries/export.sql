-- One page of the calls of a period, oldest first: those after the call (`after_time`, `after_org`, `after_id`).
SELECT u.* EXCEPT (minute, version, inserted_at)
FROM usage AS u
WHERE (u.event_time, u.org_id, u.event_id) IN (
    SELECT e.event_time, e.org_id, e.event_id
    FROM usage_events AS e FINAL
    WHERE (e.event_time, toString(e.org_id), toString(e.event_id))
            > ({after_time:DateTime64(6, 'UTC')}, {after_org:String}, {after_id:String}) AND
        -- include: asked
    ORDER BY e.event_time, toString(e.org_id), toString(e.event_id)
    LIMIT {page:UInt32}
)
ORDER BY u.event_time, toString(u.org_id), toString(u.event_id)
