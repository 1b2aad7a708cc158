-- As of when WATCH's totals are; NULL = not of every part of the log.
SELECT if(countIf(watch_at IS NULL) > 0, NULL, minOrNull(watch_at)) AS as_of
FROM line_progress
