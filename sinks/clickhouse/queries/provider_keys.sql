-- A user's keys of a period, dearest first, apart by who pays; calls without a key are the key ''. `provider` is the one
-- that took most of the key's money.
SELECT
    fingerprint,
    billing_scope,
    argMax(provider, (nano, provider)) AS provider,
    sum(nano) AS eur_nano
FROM
(
    SELECT
        api_key_id AS fingerprint,
        if(billing_scope = 'USER', 'USER', 'ORG') AS billing_scope,
        provider,
        sum(toInt128(ifNull(cost_eur_nano, 0)) + ifNull(at_risk_eur_nano, 0)) AS nano
    FROM usage_events FINAL
    WHERE status != 'VOID' AND org_id = {org:String} AND user_id = {user:String}
        AND event_time >= {since:DateTime64(6, 'UTC')}
        AND least(event_time, received_at) >= {since:DateTime64(6, 'UTC')}
        AND least(event_time, received_at) < {until:DateTime64(6, 'UTC')}
    GROUP BY fingerprint, billing_scope, provider
)
GROUP BY fingerprint, billing_scope
ORDER BY eur_nano DESC, fingerprint, billing_scope
