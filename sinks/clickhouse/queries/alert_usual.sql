-- What an hour of a key, or of an organisation (name ''), usually costs, with what is at risk, as alerts count it: the
-- mean of the hours with calls in a span of time; no row without such an hour.
SELECT toInt64(round(avg(hour_nano))) AS usual_nano
FROM
(
    SELECT sum(toInt128(cost_nano) + at_risk_nano) AS hour_nano
    FROM usage_minutes FINAL
    WHERE minute >= {since:DateTime64(6, 'UTC')} AND minute < {until:DateTime64(6, 'UTC')}
        AND org_id = {org_id:String} AND ({name:String} = '' OR api_key_id = {name:String})
    GROUP BY toStartOfHour(minute)
)
HAVING count() > 0
SETTINGS max_execution_time = 2
