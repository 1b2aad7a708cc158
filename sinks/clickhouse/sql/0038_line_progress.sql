-- How far the ledger and WATCH are in each partition of usage.priced. WATCH saves its place every few seconds, and rows
-- that are younger are nobody's loss.
CREATE VIEW IF NOT EXISTS line_progress AS
SELECT
    l.priced_partition AS priced_partition, l.ledger_offset AS ledger_offset, l.stored_at AS stored_at,
    if(w.written_at = toDateTime64(0, 3, 'UTC'), NULL, w.applied) AS watch_offset,
    if(w.written_at = toDateTime64(0, 3, 'UTC'), NULL, w.written_at) AS watch_at
FROM
(
    SELECT priced_partition, max(priced_offset) AS ledger_offset, max(inserted_at) AS stored_at
    FROM ledger_coverage
    GROUP BY priced_partition
) AS l
LEFT JOIN (SELECT priced_partition, applied, written_at FROM watch_progress FINAL) AS w
    ON w.priced_partition = l.priced_partition
