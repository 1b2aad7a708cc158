-- Minutes (seconds since 1970) of which rows came since the rollup covered them, or that it computed without all columns.
(
    SELECT toUnixTimestamp(toStartOfMinute(event_time))
    FROM usage_events
    WHERE inserted_at >= (SELECT max(covered_until) FROM rollup_progress WHERE name = 'usage_minutes')
        AND event_time >= {since:DateTime64(6, 'UTC')} AND event_time < {until:DateTime64(6, 'UTC')}
    UNION DISTINCT
    SELECT toUnixTimestamp(minute)
    FROM usage_minutes
    WHERE minute >= {first:DateTime('UTC')} AND minute < {last:DateTime('UTC')} AND estimated IS NULL
)
