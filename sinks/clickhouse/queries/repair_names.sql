-- The names of one organisation that have totals of their own in the months that begin at `starts`.
SELECT toInt64(toUnixTimestamp(bucket)) AS start_s, toString(scope) AS scope, name
FROM usage_windows
WHERE level = 'month' AND org_id = {org:String} AND has({starts:Array(Int64)}, toInt64(toUnixTimestamp(bucket)))
GROUP BY start_s, scope, name
