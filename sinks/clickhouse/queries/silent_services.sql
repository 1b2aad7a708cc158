-- Services that have been silent for longer than twice their longest pause of eight days, and for ten minutes at least.
-- What came an hour after its call and later is no rhythm: an import, or a spool that was drained.
-- Who has fewer than 20 calls or less than a day behind him has no rhythm yet. Where WATCH has not saved its place within
-- a minute the line itself stands still, and nobody can say who is silent.
WITH (SELECT max(written_at) FROM watch_progress) AS alive
SELECT
    service,
    if(uniqExact(org_id) = 1, any(org_id), '') AS org_id,
    count() AS calls,
    max(event_time) AS last,
    arrayMax(arrayDifference(arraySort(groupUniqArray(toUnixTimestamp(toStartOfMinute(event_time)))))) AS pause_s,
    dateDiff('second', max(event_time), now64(6, 'UTC')) AS silent_s
FROM usage_events
WHERE status != 'VOID' AND service != '' AND event_time >= now() - INTERVAL 8 DAY AND event_time < now()
    AND received_at < event_time + INTERVAL 1 HOUR
    AND alive > now() - INTERVAL 1 MINUTE
GROUP BY service
HAVING calls >= 20 AND min(event_time) < now() - INTERVAL 1 DAY AND silent_s > greatest(600, 2 * pause_s)
ORDER BY service
