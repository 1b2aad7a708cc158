-- A page of the calls that name a user or an address, as they are now, void ones too, while they can be corrected.
SELECT e.* EXCEPT (event_id, version, inserted_at), toString(e.event_id) AS id
FROM usage_events AS e FINAL
WHERE if({what:String} = 'user', e.user_id, e.client_ip) = {name:String}
    AND ({org_id:String} = '' OR e.org_id = {org_id:String}) AND e.revision < {most:UInt16}
ORDER BY e.event_time, e.org_id, e.event_id
LIMIT {page:UInt32}
