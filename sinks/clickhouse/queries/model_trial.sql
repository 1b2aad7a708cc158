-- The models that the calls of one scope were sent to, in a period, and what they cost, for a rule about models to be
-- held against. Calls that were refused are none; `own` = 0 leaves out those on users' own keys.
SELECT
    e.provider_id AS provider,
    e.model_sent AS model,
    count() AS calls,
    uniqExact(e.user_id) AS users,
    min(e.event_time) AS first,
    sum(toInt128(ifNull(e.cost_nano, 0))) AS nano,
    countIf(e.cost_nano IS NULL) AS unpriced
FROM usage_events AS e FINAL
WHERE e.event_time >= {since:DateTime64(6, 'UTC')} AND e.event_time < {until:DateTime64(6, 'UTC')}
    AND e.org_id = {org:String} AND e.status NOT IN ('BLOCKED', 'VOID') AND ({own:UInt8} OR e.billing_scope != 'USER')
    -- include: scope
GROUP BY provider, model
ORDER BY calls DESC, provider, model
