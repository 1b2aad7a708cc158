-- The identities that were taken out of the ledger on purpose.
SELECT event_time, org_id, toString(event_id) AS event_id FROM ledger_voids FINAL
