-- Every limit of a pool in its current period, with what is used of it, in the limit's own unit: nano-units of a currency
-- with what may still come of unpriced calls, tokens, or requests. Rolling limits sum 15-minute windows. What nobody has
-- spent yet is a used of 0. Amounts are those that hold now: raised, or with what a reset adds. Of day, week and month `ends` is local midnight but for a change of clocks within the period.
CREATE OR REPLACE VIEW budget_use AS
SELECT
    b.policy_id AS policy_id, b.org_id AS org_id, b.scope AS scope, b.name AS name, b.window AS period,
    b.timezone AS timezone, b.unit AS unit, b.amount AS amount,
    sumIf(w.used, w.level != '' AND if(b.period = 'rolling', w.bucket >= b.starts, if(b.period = 'month',
            substring(toString(w.bucket, b.timezone), 1, 7) = substring(toString(b.first_day), 1, 7),
            substring(toString(w.bucket, b.timezone), 1, 10) = toString(b.first_day)))) AS used,
    sumIf(w.at_risk, w.level != '' AND if(b.period = 'rolling', w.bucket >= b.starts, if(b.period = 'month',
            substring(toString(w.bucket, b.timezone), 1, 7) = substring(toString(b.first_day), 1, 7),
            substring(toString(w.bucket, b.timezone), 1, 10) = toString(b.first_day)))) AS at_risk_nano,
    b.starts AS starts, b.ends AS ends, b.warn_threshold_pct AS warn_threshold_pct
FROM
(
    SELECT
        policy_id, org_id, scope, name, timezone, warn_threshold_pct, lim.1 AS period,
        if(lim.1 = 'rolling', concat('rolling', toString(assumeNotNull(lim.4)), 'h'), lim.1) AS window,
        arrayFilter(one -> one.limit = concat(window, '/', lim.2) AND toUnixTimestamp64Milli(now64(3)) < one.until_ms,
            JSONExtract(policy, 'adjustments',
                'Array(Tuple(limit String, amount Nullable(Int64), added Int64, until_ms Int64))')) AS holding,
        if(lim.2 = 'money', currency, lim.2) AS unit, if(lim.2 = 'money', 1000, 1) * (
            ifNull(arrayElementOrNull(arrayFilter(one -> ifNull(one, 0) > 0, holding.amount), -1), lim.3)
            + ifNull(arrayElementOrNull(arrayFilter(one -> one > 0, holding.added), -1), 0)) AS amount,
        multiIf(lim.1 = 'rolling', 'quarter', timezone = 'UTC' AND lim.1 IN ('day', 'month'), lim.1,
            concat(lim.1, '@', timezone)) AS level,
        toInt64(ifNull(lim.4, 0)) * 3600 AS rolling_s,
        toDate(substring(toString(now(), timezone), 1, 10)) AS today,
        multiIf(lim.1 = 'day', today, lim.1 = 'week', toMonday(today), toStartOfMonth(today)) AS first_day,
        multiIf(lim.1 = 'day', first_day + 1, lim.1 = 'week', first_day + 7, toDate(addMonths(first_day, 1))) AS end_day,
        dateDiff('second', now(), toDateTime(toString(now(), timezone), 'UTC')) AS offset_s,
        if(lim.1 = 'rolling', toStartOfInterval(now(), INTERVAL 15 MINUTE) + 900 - rolling_s, toDateTime(first_day, 'UTC') - offset_s) AS starts,
        if(lim.1 = 'rolling', toStartOfInterval(now(), INTERVAL 15 MINUTE) + 900, toDateTime(end_day, 'UTC') - offset_s) AS ends
    FROM
    (
        SELECT
            policy_id, org_id, scope, name, timezone, currency, warn_threshold_pct, policy,
            arrayJoin(arrayConcat(
                if(daily_limit_micro IS NULL, [], [tuple('day', 'money', assumeNotNull(daily_limit_micro), NULL)]),
                if(monthly_limit_micro IS NULL, [], [tuple('month', 'money', assumeNotNull(monthly_limit_micro), NULL)]),
                limits
            )) AS lim
        FROM policies
        WHERE applies = 'pool'
    )
) AS b
LEFT JOIN
(
    SELECT
        level, bucket, org_id, scope, name, unit, if(unit IN ('USD', 'EUR', 'RUB'), at_risk_nano, 0) AS at_risk,
        multiIf(unit = 'USD', cost_nano + at_risk_nano, unit = 'EUR', spend_eur_nano, unit = 'RUB', spend_rub_nano,
            unit = 'tokens', input_tokens + output_tokens - byok_tokens, calls - blocked - byok_calls) AS used
    FROM usage_live
    ARRAY JOIN ['USD', 'EUR', 'RUB', 'tokens', 'requests'] AS unit
    WHERE bucket >= now() - INTERVAL 63 DAY AND level NOT IN ('minute', 'hour')
) AS w ON w.org_id = b.org_id AND w.scope = b.scope AND w.name = b.name AND w.level = b.level AND w.unit = b.unit
GROUP BY policy_id, org_id, scope, name, b.window, timezone, unit, amount, starts, ends, warn_threshold_pct
