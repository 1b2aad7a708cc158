-- On which days (UTC) calls wait for a rate of these currencies. Replaced rows may name a day too many.
SELECT toDate(e.event_time) AS day
FROM usage_events AS e
WHERE e.status != 'VOID' AND
    -- include: unrated
GROUP BY day
ORDER BY day
