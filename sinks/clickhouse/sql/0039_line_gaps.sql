-- Parts of usage.priced that were gone before a stage had read them, as it declared them.
CREATE VIEW IF NOT EXISTS line_gaps AS
SELECT g.stage AS stage, g.priced_partition AS priced_partition, g.first_offset AS first_offset,
    g.last_offset AS last_offset, g.reason AS reason, g.found_at AS found_at
FROM ledger_gaps AS g FINAL
