-- How new what the ledger holds is: when the newest event of an organisation, or of all, was received; NULL = it has none
-- of the last `days` days. Two days are found by the index of inserts.
SELECT maxOrNull(received_at) AS as_of
FROM usage_events
WHERE inserted_at >= now64(6, 'UTC') - toIntervalDay({days:UInt32}) AND (empty({orgs:Array(String)}) OR has({orgs:Array(String)}, org_id))
