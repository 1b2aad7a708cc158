-- What of the source log was read, one row a batch of one partition: how many records, how many of them went to the dead
-- letters, how many rows came of it, and when the ledger had them. Replays say the same again.
CREATE VIEW IF NOT EXISTS line_batches AS
SELECT
    c.source_partition AS source_partition, c.first_offset AS first_offset, c.last_offset AS last_offset,
    max(c.records) AS records, max(c.rejected) AS rejected, sum(c.rows) AS rows, min(c.inserted_at) AS stored_at
FROM ledger_coverage AS c FINAL
GROUP BY source_partition, first_offset, last_offset
