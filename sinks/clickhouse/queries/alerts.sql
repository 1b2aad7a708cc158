-- The alerts since a time, oldest first: each the CloudEvent as it was sent, and what notify has made of it, if anything.
SELECT a.event AS event, a.appended_at AS appended_at, s.state AS state, s.held AS held, s.told AS told
FROM alerts AS a FINAL
LEFT JOIN
(
    SELECT id, argMax(state, written_at) AS state, argMax(held, written_at) AS held, argMax(told, written_at) AS told
    FROM alert_states
    GROUP BY id
) AS s ON s.id = a.id
WHERE a.received_at >= {since:DateTime64(6, 'UTC')}
ORDER BY a.received_at, a.id
LIMIT {limit:UInt32}
