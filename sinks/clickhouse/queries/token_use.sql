-- What each tracking token reported: calls of today (UTC), and the last one of 30 days.
SELECT
    tags['tracking_token'] AS token,
    countIf(event_time >= toStartOfDay(now('UTC'), 'UTC')) AS calls_today,
    max(event_time) AS last_at
FROM usage
WHERE event_time >= now() - INTERVAL 30 DAY AND mapContains(tags, 'tracking_token')
    AND ({org_id:String} = '' OR org_id = {org_id:String})
GROUP BY token
ORDER BY token
