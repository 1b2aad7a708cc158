-- Alerts with plain names, one row an id: as first sent, with what notify has made of it ('' = not taken yet).
CREATE VIEW IF NOT EXISTS alert_list AS
SELECT
    a.id AS id, a.at AS received_at, a.appended AS appended_at, a.kind AS kind, a.severity AS severity,
    a.org_id AS org_id, a.scope AS scope, a.name AS name, a.period AS period, a.text AS text,
    s.state AS state, s.held AS held, s.told AS told, a.data AS data
FROM
(
    SELECT
        id, min(received_at) AS at, min(appended_at) AS appended,
        argMin(kind, appended_at) AS kind, argMin(severity, appended_at) AS severity,
        argMin(org_id, appended_at) AS org_id, argMin(scope, appended_at) AS scope, argMin(name, appended_at) AS name,
        argMin(period, appended_at) AS period, argMin(text, appended_at) AS text, argMin(data, appended_at) AS data
    FROM alerts
    GROUP BY id
) AS a
LEFT JOIN
(
    SELECT id, argMax(state, written_at) AS state, argMax(held, written_at) AS held, argMax(told, written_at) AS told
    FROM alert_states
    GROUP BY id
) AS s ON s.id = a.id
