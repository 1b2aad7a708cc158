-- How many rows the ledger stores per minute of event time, duplicates that no merge has removed yet included.
SELECT toStartOfMinute(event_time) AS minute, count() AS rows
FROM usage_events
GROUP BY minute
ORDER BY minute
