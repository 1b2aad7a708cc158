-- Minutes with rows inserted since they were computed, those due first: quiet for a while, or waiting for long.
-- `dirty` counts all of them, `uncovered_from` is the first insert that any of them still waits for.
SELECT
    minute,
    rows,
    now_us - computed_us >= {gap_us:Int64} AND (now_us - last_us >= {quiet_us:Int64} OR now_us - uncovered_us >= {gap_us:Int64})
        AS due,
    count() OVER () AS dirty,
    fromUnixTimestamp64Micro(min(uncovered_us) OVER (), 'UTC') AS uncovered_from
FROM
(
    SELECT
        e.minute AS minute,
        e.rows AS rows,
        e.last_us AS last_us,
        c.computed_us AS computed_us,
        greatest(e.first_us, c.computed_us - {slack_us:Int64}) AS uncovered_us,
        toUnixTimestamp64Micro({now:DateTime64(6, 'UTC')}) AS now_us
    FROM
    (
        SELECT
            toUnixTimestamp(toStartOfMinute(event_time)) AS minute,
            count() AS rows,
            toUnixTimestamp64Micro(min(inserted_at)) AS first_us,
            toUnixTimestamp64Micro(max(inserted_at)) AS last_us
        FROM usage_events
        WHERE inserted_at >= {covered_until:DateTime64(6, 'UTC')}
            AND event_time >= {oldest:DateTime64(6, 'UTC')} AND event_time < '2106-01-01'
        GROUP BY minute
    ) AS e
    LEFT JOIN
    (
        SELECT toUnixTimestamp(m.minute) AS minute, toUnixTimestamp64Micro(max(m.computed_at)) AS computed_us
        FROM usage_minutes AS m
        WHERE m.minute IN
        (
            SELECT toStartOfMinute(event_time) FROM usage_events
            WHERE inserted_at >= {covered_until:DateTime64(6, 'UTC')}
                AND event_time >= {oldest:DateTime64(6, 'UTC')} AND event_time < '2106-01-01'
        )
        GROUP BY minute
    ) AS c ON c.minute = e.minute
    WHERE last_us >= computed_us - {slack_us:Int64}
)
ORDER BY due DESC, minute
LIMIT {limit:UInt32}
