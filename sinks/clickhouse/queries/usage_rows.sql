-- How many calls of an organisation the ledger holds, and when the newest of them was made (NULL = there is none).
SELECT count() AS usage_rows, maxOrNull(event_time) AS last_usage_at
FROM usage_events FINAL
WHERE org_id = {org_id:String}
