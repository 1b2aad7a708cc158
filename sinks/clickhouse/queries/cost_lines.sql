-- Costs of a month that no call shows, credits below zero, with their value in USD at the newest rate up to the end of
-- the month, not older than so many days; NULL without one. A quotient is rounded half to even, as money is.
WITH
    toDate(concat({month:String}, '-01')) AS first,
    least(addMonths(first, 1) - 1, {today:Date}) AS at
SELECT org_id, name, provider, cost_centre, quantity, unit_nano, currency, quantity * unit_nano AS amount_nano,
    multiIf(
        currency = 'USD', toNullable(amount_nano),
        isNull(rate), NULL,
        toInt64(sign * (intDiv(scaled, rate) + toInt64(scaled % rate * 2 > rate OR (scaled % rate * 2 = rate AND intDiv(scaled, rate) % 2 = 1))))
    ) AS cost_nano,
    if(currency = 'USD', NULL, rate_day) AS fx_date
FROM
(
    SELECT
        JSONExtractString(value, 'org_id') AS org_id, JSONExtractString(value, 'name') AS name,
        JSONExtractString(value, 'provider') AS provider, JSONExtractString(value, 'cost_centre') AS cost_centre,
        JSONExtractInt(value, 'quantity') AS quantity, JSONExtractInt(value, 'unit_nano') AS unit_nano,
        JSONExtractString(value, 'currency') AS currency,
        if(unit_nano < 0, -1, 1) AS sign,  -- a credit is rounded as its amount without the sign
        toInt256(quantity) * toInt256(sign * unit_nano) * toInt256(1000000000) AS scaled,
        r.day AS rate_day, CAST(r.per_usd_nano AS Nullable(Int256)) AS rate
    FROM registry AS l FINAL
    LEFT JOIN
    (
        SELECT f.currency AS currency, toNullable(max(f.day)) AS day, toNullable(argMax(f.per_usd_nano, (f.day, f.inserted_at))) AS per_usd_nano
        FROM fx_rates AS f
        WHERE f.day <= at AND f.day >= at - {max_age_days:UInt32}
        GROUP BY f.currency
    ) AS r ON r.currency = JSONExtractString(l.value, 'currency')
    WHERE startsWith(key, 'cost_line:') AND value != ''
        AND JSONExtractString(value, 'since') <= {month:String}
        AND (JSONExtractString(value, 'until') = '' OR JSONExtractString(value, 'until') >= {month:String})
        AND ({org_id:String} = '' OR JSONExtractString(value, 'org_id') = {org_id:String})
)
ORDER BY org_id, provider, name
