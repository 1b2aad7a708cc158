-- Keys, models, addresses, users and services of a period that the 30 days before it did not have, the dearest first.
SELECT
    kind,
    name,
    min(first_seen) AS first_seen,
    count() AS calls,
    sum(toInt128(ifNull(cost_nano, 0))) AS known_nano,
    countIf(unknown) AS unpriced,
    sum(toInt128(ifNull(at_risk_nano, 0))) AS risk_nano
FROM
(
    SELECT
        one.1 AS kind,
        one.2 AS name,
        e.event_time AS first_seen,
        e.cost_nano AS cost_nano,
        e.at_risk_nano AS at_risk_nano,
        e.cost_nano IS NULL AND NOT (e.status = 'ERROR' AND e.price_status = 'NO_USAGE') AS unknown
    FROM usage_events AS e FINAL
    ARRAY JOIN [
        ('key', e.api_key_id), ('model', e.model), ('ip', e.client_ip), ('user', e.user_id), ('service', e.service)
    ] AS one
    WHERE one.2 != '' AND
        -- include: asked
)
WHERE (kind, name) NOT IN
(
    SELECT before.1, before.2
    FROM usage_events AS e
    ARRAY JOIN [
        ('key', e.api_key_id), ('model', e.model), ('ip', e.client_ip), ('user', e.user_id), ('service', e.service)
    ] AS before
    WHERE e.status != 'VOID' AND (empty({orgs:Array(String)}) OR has({orgs:Array(String)}, e.org_id))
        AND e.event_time >= {since:DateTime64(6, 'UTC')} - INTERVAL 30 DAY
        AND e.event_time < {since:DateTime64(6, 'UTC')}
)
GROUP BY kind, name
ORDER BY known_nano DESC, kind, name
LIMIT {top:UInt32}
