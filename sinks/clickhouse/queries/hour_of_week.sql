-- What each key spent in an hour that is over, and in the same hour of the week and its neighbours in each of the four
-- weeks before: twelve amounts, the youngest first; and in how many of those weeks it called at all. Dear hours alone.
SELECT org_id, api_key_id, cost_nano,
    arrayMap(age -> toInt64(spent[indexOf(hours, age)]),
        [167, 168, 169, 335, 336, 337, 503, 504, 505, 671, 672, 673]) AS past,
    length(arrayDistinct(arrayMap(age -> intDiv(age - 84, 168), arrayFilter(age -> age >= 84, hours)))) AS weeks
FROM
(
    SELECT org_id, api_key_id, groupArray(age) AS hours, groupArray(nano) AS spent, sumIf(nano, age = 0) AS cost_nano
    FROM
    (
        SELECT org_id, api_key_id, dateDiff('hour', toStartOfHour(minute), {hour:DateTime('UTC')}) AS age,
            toInt64(sum(toInt128(cost_nano) + at_risk_nano)) AS nano
        FROM usage_minutes FINAL
        WHERE minute >= {hour:DateTime('UTC')} - INTERVAL 673 HOUR AND minute < {hour:DateTime('UTC')} + INTERVAL 1 HOUR
            AND api_key_id != '' AND calls > 0
        GROUP BY org_id, api_key_id, age
    )
    GROUP BY org_id, api_key_id
    HAVING cost_nano >= {floor:Int64}
)
ORDER BY org_id, api_key_id
