-- The ledger rows of some ids in [first, last] as they are now, void ones too, with their place in the log.
SELECT e.* EXCEPT (event_id, version, inserted_at), toString(e.event_id) AS id
FROM usage_events AS e FINAL
WHERE e.event_time >= {first:DateTime64(6, 'UTC')} AND e.event_time <= {last:DateTime64(6, 'UTC')}
    AND (e.event_time, e.org_id, e.event_id) IN
        (SELECT event_time, org_id, event_id FROM usage_events
        WHERE event_time >= {first:DateTime64(6, 'UTC')} AND event_time <= {last:DateTime64(6, 'UTC')}
            AND event_id IN {ids:Array(UUID)})
ORDER BY e.event_time, id, e.org_id
