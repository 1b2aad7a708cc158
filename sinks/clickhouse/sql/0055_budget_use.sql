-- Every limit in its current period, with what is used of it, in the limit's own unit: nano-units of a currency with what
-- may still come of unpriced calls, tokens, or requests. `applies` = pool: what all calls of the scope use together; a pool
-- that nobody has used is 0. each_member: the limit that binds one user, key, agent, session or run for itself, of its
-- organisation, its groups or a default, the smallest of each kind; there is a row for whoever has used some of it.
-- Rolling limits sum 15-minute windows. Amounts are those that hold now: raised, or with what a reset adds. Of day, week
-- and month `ends` is local midnight but for a change of clocks within the period.
CREATE OR REPLACE VIEW budget_use AS
WITH RECURSIVE
inside AS
(
    SELECT org_id, name AS user_id, arrayJoin(groups) AS group_id, 1 AS depth FROM members WHERE kind = 'user'
    UNION ALL
    SELECT i.org_id, i.user_id, g.upper AS group_id, i.depth + 1 AS depth
    FROM inside AS i
    INNER JOIN (SELECT org_id, name, arrayJoin(groups) AS upper FROM members WHERE kind = 'group') AS g
        ON g.org_id = i.org_id AND g.name = i.group_id
    WHERE i.depth < 16
),
lims AS
(
    SELECT
        policy_id, org_id, scope, name, applies, timezone, warn_threshold_pct, lim.1 AS period,
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
            policy_id, org_id, scope, name, applies, timezone, currency, warn_threshold_pct, policy,
            arrayJoin(arrayConcat(
                if(daily_limit_micro IS NULL, [], [tuple('day', 'money', assumeNotNull(daily_limit_micro), NULL)]),
                if(monthly_limit_micro IS NULL, [], [tuple('month', 'money', assumeNotNull(monthly_limit_micro), NULL)]),
                limits
            )) AS lim
        FROM policies
    )
),
seen AS
(
    SELECT DISTINCT org_id, scope, name
    FROM usage_live
    WHERE scope IN ('user', 'api_key', 'agent', 'session', 'run') AND name != ''
        AND bucket >= now() - INTERVAL 63 DAY AND level NOT IN ('minute', 'hour')
        AND org_id IN (SELECT org_id FROM policies WHERE applies = 'each_member')
        AND (org_id, scope, name) NOT IN (SELECT org_id, scope, name FROM policies WHERE applies = 'pool')
)
SELECT
    b.policy_id AS policy_id, b.org_id AS org_id, b.scope AS scope, b.name AS name, b.applies AS applies,
    b.window AS period, b.timezone AS timezone, b.unit AS unit, b.amount AS amount,
    sumIf(w.used, w.level != '' AND if(b.period = 'rolling', w.bucket >= b.starts, if(b.period = 'month',
            substring(toString(w.bucket, b.timezone), 1, 7) = substring(toString(b.first_day), 1, 7),
            substring(toString(w.bucket, b.timezone), 1, 10) = toString(b.first_day)))) AS used,
    sumIf(w.at_risk, w.level != '' AND if(b.period = 'rolling', w.bucket >= b.starts, if(b.period = 'month',
            substring(toString(w.bucket, b.timezone), 1, 7) = substring(toString(b.first_day), 1, 7),
            substring(toString(w.bucket, b.timezone), 1, 10) = toString(b.first_day)))) AS at_risk_nano,
    b.starts AS starts, b.ends AS ends, b.warn_threshold_pct AS warn_threshold_pct
FROM
(
    SELECT policy_id, org_id, scope, name, applies, timezone, warn_threshold_pct, period, window, unit, amount, level, first_day, starts, ends
    FROM lims
    WHERE applies = 'pool'
    UNION ALL
    SELECT
        argMin(l.policy_id, (l.amount, l.policy_id)) AS policy_id, l.org_id AS org_id, s.scope AS scope, s.name AS name,
        'each_member' AS applies, l.timezone AS timezone,
        min(min(l.warn_threshold_pct)) OVER (PARTITION BY l.org_id, s.scope, s.name) AS warn_threshold_pct,
        any(l.period) AS period, l.window AS window, l.unit AS unit, min(l.amount) AS amount, any(l.level) AS level,
        any(l.first_day) AS first_day, any(l.starts) AS starts, any(l.ends) AS ends
    FROM lims AS l
    INNER JOIN seen AS s ON s.org_id = l.org_id
    WHERE l.applies = 'each_member'
        AND ((l.scope = s.scope AND l.name = '') OR (s.scope = 'user' AND (l.scope = 'org' OR (l.scope = 'group'
            AND (l.org_id, s.name, l.name) IN (SELECT org_id, user_id, group_id FROM inside)))))
    GROUP BY l.org_id, s.scope, s.name, l.window, l.timezone, l.unit
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
GROUP BY policy_id, org_id, scope, name, applies, b.window, timezone, unit, amount, starts, ends, warn_threshold_pct
HAVING applies = 'pool' OR used > 0
