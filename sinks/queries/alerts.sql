-- The alerts since a time, oldest first: each the CloudEvent as it was sent.
SELECT event, appended_at
FROM alerts FINAL
WHERE received_at >= {since:DateTime64(6, 'UTC')}
ORDER BY received_at, id
LIMIT {limit:UInt32}
