-- The alerts of organisations in a period, oldest first, one row an id, or the one of an id; as in `alerts`.
SELECT a.first AS event, a.appended AS appended_at, s.state AS state, s.held AS held, s.told AS told
FROM
(
    SELECT id, argMin(event, (appended_at, event)) AS first, min(appended_at) AS appended, min(received_at) AS at
    FROM alerts
    WHERE has({orgs:Array(String)}, org_id) AND ({id:String} = '' OR id = {id:String})
    GROUP BY id
) AS a
LEFT JOIN
(
    SELECT id, argMax(state, written_at) AS state, argMax(held, written_at) AS held, argMax(told, written_at) AS told
    FROM alert_states
    GROUP BY id
) AS s ON s.id = a.id
WHERE a.at >= {since:DateTime64(6, 'UTC')} AND a.at < {until:DateTime64(6, 'UTC')}
ORDER BY a.at, a.id
LIMIT {limit:UInt32}
