-- Whether any call waits for a price that a later price book may know; see unpriced_kinds.
SELECT 1 AS one
FROM usage_events
WHERE cost_nano IS NULL AND price_status = 'UNKNOWN_MODEL' AND status != 'VOID'
LIMIT 1
