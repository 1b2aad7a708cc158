-- How many calls a span of time has.
SELECT count() AS calls FROM usage_events FINAL
WHERE event_time >= {since:DateTime64(6, 'UTC')} AND event_time < {until:DateTime64(6, 'UTC')} AND status != 'VOID'
