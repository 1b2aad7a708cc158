-- A journal of [since, until): known cost by local month, organisation, cost centre of the key and provider, in USD and, as
-- lines of their own, in EUR and RUB at the rates of the calls' days, where every call of the line has one.
SELECT
    period, org_id, cost_centre, provider, tupleElement(money, 1) AS currency,
    toDecimal128(tupleElement(money, 2), 0) * toDecimal128('0.000000001', 9) AS amount,
    calls, tupleElement(money, 4) AS fx_first, tupleElement(money, 5) AS fx_last
FROM
(
    SELECT
        formatDateTime(e.event_time, '%Y-%m', {zone:String}) AS period,
        toString(e.org_id) AS org_id,
        l.cost_centre AS cost_centre,
        toString(e.provider_id) AS provider,
        toInt64(count()) AS calls,
        arrayFilter(pair -> tupleElement(pair, 3) = 0, [
            ('USD', sum(toInt128(e.cost_nano)), toUInt64(0), CAST(NULL, 'Nullable(Date)'), CAST(NULL, 'Nullable(Date)')),
            ('EUR', sum(toInt128(ifNull(e.cost_eur_nano, 0))), countIf(e.cost_eur_nano IS NULL), min(ifNull(e.fx_eur_date, e.fx_date)), max(ifNull(e.fx_eur_date, e.fx_date))),
            ('RUB', sum(toInt128(ifNull(e.cost_rub_nano, 0))), countIf(e.cost_rub_nano IS NULL), min(ifNull(e.fx_rub_date, e.fx_date)), max(ifNull(e.fx_rub_date, e.fx_date)))
        ]) AS moneys
    FROM (SELECT * FROM usage_events FINAL) AS e
    LEFT ANY JOIN
    (
        SELECT org_id AS label_org, api_key_id AS label_key, cost_centre FROM key_labels
    ) AS l ON l.label_key = e.api_key_id AND l.label_org = e.org_id
    WHERE e.cost_nano IS NOT NULL AND e.status != 'BLOCKED' AND e.billing_scope != 'USER' AND
        -- include: asked
    GROUP BY period, org_id, cost_centre, provider
)
ARRAY JOIN moneys AS money
ORDER BY period, org_id, cost_centre, provider, currency
