-- Costs of so many months, from one on, that no call shows, credits below zero, with their value in USD at the newest rate
-- up to the end of each month, not older than so many days; NULL without one. A quotient is rounded half to even, as money is.
SELECT month, org_id, name, provider, cost_centre, quantity, unit_nano, currency, quantity * unit_nano AS amount_nano,
    multiIf(
        currency = 'USD', toNullable(amount_nano),
        isNull(rate), NULL,
        toInt64(sign * (intDiv(scaled, rate) + toInt64(scaled % rate * 2 > rate OR (scaled % rate * 2 = rate AND intDiv(scaled, rate) % 2 = 1))))
    ) AS cost_nano,
    if(currency = 'USD' OR isNull(rate), NULL, rate_day) AS fx_date
FROM
(
    SELECT
        l.month AS month, l.org_id AS org_id, l.name AS name, l.provider AS provider, l.cost_centre AS cost_centre,
        l.quantity AS quantity, l.unit_nano AS unit_nano, l.currency AS currency,
        if(unit_nano < 0, -1, 1) AS sign,  -- a credit is rounded as its amount without the sign
        toInt256(quantity) * toInt256(sign * unit_nano) * toInt256(1000000000) AS scaled,
        r.day AS rate_day,
        if(rate_day < l.at - {max_age_days:UInt32}, NULL, CAST(r.per_usd_nano AS Nullable(Int256))) AS rate
    FROM
    (
        SELECT
            formatDateTime(first, '%Y-%m') AS month,
            toDate(least(addMonths(first, 1) - 1, toDate32({today:Date}))) AS at,
            JSONExtractString(value, 'org_id') AS org_id, JSONExtractString(value, 'name') AS name,
            JSONExtractString(value, 'provider') AS provider, JSONExtractString(value, 'cost_centre') AS cost_centre,
            JSONExtractInt(value, 'quantity') AS quantity, JSONExtractInt(value, 'unit_nano') AS unit_nano,
            JSONExtractString(value, 'currency') AS currency
        FROM registry FINAL
        ARRAY JOIN arrayMap(number -> addMonths(toDate32(concat({month:String}, '-01')), number), range({months:UInt32})) AS first
        WHERE startsWith(key, 'cost_line:') AND value != ''
            AND JSONExtractString(value, 'since') <= month
            AND (JSONExtractString(value, 'until') = '' OR JSONExtractString(value, 'until') >= month)
            AND ({org_id:String} = '' OR JSONExtractString(value, 'org_id') = {org_id:String})
    ) AS l
    ASOF LEFT JOIN
    (
        SELECT toString(f.currency) AS currency, f.day AS day, argMax(f.per_usd_nano, f.inserted_at) AS per_usd_nano
        FROM fx_rates AS f
        GROUP BY f.currency, f.day
    ) AS r ON r.currency = l.currency AND r.day <= l.at
)
ORDER BY month, org_id, provider, name
