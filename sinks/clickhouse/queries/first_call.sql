-- When the first stored call was made that is asked for; NULL = none is.
SELECT minOrNull(e.event_time) AS first
FROM usage_events AS e
WHERE
    -- include: asked
