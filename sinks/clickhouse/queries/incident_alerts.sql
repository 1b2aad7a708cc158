-- Alerts of some kinds in a period, oldest first, one row an id, each with what notify made of it: of organisations
-- (none named: of all), of one user those about him alone.
SELECT a.first AS event, s.state AS state, s.held AS held, s.incident AS incident, s.turn AS turn, s.body AS body
FROM
(
    SELECT id, argMin(event, (appended_at, event)) AS first, min(received_at) AS at
    FROM alerts
    WHERE received_at >= {since:DateTime64(6, 'UTC')} AND received_at < {until:DateTime64(6, 'UTC')}
        AND has({kinds:Array(String)}, kind)
        AND (empty({orgs:Array(String)}) OR has({orgs:Array(String)}, org_id))
        AND ({user_id:String} = '' OR (scope = 'user' AND name = {user_id:String}))
    GROUP BY id
) AS a
LEFT JOIN
(
    SELECT id, argMax(state, written_at) AS state, argMax(held, written_at) AS held,
        argMax(incident, written_at) AS incident, argMax(turn, written_at) AS turn, argMax(body, written_at) AS body
    FROM alert_states
    GROUP BY id
) AS s ON s.id = a.id
ORDER BY a.at, a.id
LIMIT {limit:UInt32}
