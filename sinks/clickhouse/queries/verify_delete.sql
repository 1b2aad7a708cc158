-- Deletes rows by identity, every stored version of them.
DELETE FROM usage_events
WHERE event_time >= {from:DateTime64(6, 'UTC')} AND event_time < {until:DateTime64(6, 'UTC')}
    AND has(
        arrayZip({ids:Array(UUID)}, {times:Array(Int64)}, {orgs:Array(String)}),
        (event_id, toUnixTimestamp64Micro(event_time), toString(org_id))
    )
