-- What the calls of one scope used of a period, as limits count it; one row. A call is charged when it was made, or when
-- it arrived if that was earlier; money is cost and, where that is unknown, money at risk; a refused call is no request.
-- Of a currency `_stale` counts calls that cost by a rate that is too old and a margin, `_unrated` those that miss, and
-- `_unrated_nano` says what these cost in nano-USD.
-- `own` = 0: calls that the organisation pays; 1: calls on users' own keys, which never count toward limits.
SELECT
    sum(toInt128(ifNull(cost_nano, 0)) + ifNull(at_risk_nano, 0)) AS usd_nano,
    sum(toInt128(ifNull(cost_eur_nano, 0)) + ifNull(at_risk_eur_nano, 0)) AS eur_nano,
    sum(toInt128(ifNull(cost_rub_nano, 0)) + ifNull(at_risk_rub_nano, 0)) AS rub_nano,
    countIf(cost_nano IS NOT NULL AND cost_eur_nano IS NULL AND at_risk_eur_nano IS NOT NULL) AS eur_stale,
    countIf(cost_eur_nano IS NULL AND at_risk_eur_nano IS NULL AND ifNull(cost_nano, at_risk_nano) > 0) AS eur_unrated,
    countIf(cost_nano IS NOT NULL AND cost_rub_nano IS NULL AND at_risk_rub_nano IS NOT NULL) AS rub_stale,
    countIf(cost_rub_nano IS NULL AND at_risk_rub_nano IS NULL AND ifNull(cost_nano, at_risk_nano) > 0) AS rub_unrated,
    sumIf(toInt128(ifNull(cost_nano, 0)) + ifNull(at_risk_nano, 0),
        cost_eur_nano IS NULL AND at_risk_eur_nano IS NULL) AS eur_unrated_nano,
    sumIf(toInt128(ifNull(cost_nano, 0)) + ifNull(at_risk_nano, 0),
        cost_rub_nano IS NULL AND at_risk_rub_nano IS NULL) AS rub_unrated_nano,
    sum(toInt128(input_tokens) + output_tokens) AS tokens,
    countIf(status != 'BLOCKED') AS requests
FROM usage_events AS e FINAL
WHERE e.status != 'VOID' AND org_id = {org:String} AND (billing_scope = 'USER') = {own:UInt8}
    AND event_time >= {since:DateTime64(6, 'UTC')}
    AND least(event_time, received_at) >= {since:DateTime64(6, 'UTC')}
    AND least(event_time, received_at) < {until:DateTime64(6, 'UTC')}
    -- include: scope
