-- Calls of a period that are no charge of a FOCUS file: of unknown cost, and on users' own keys.
SELECT
    countIf(e.cost_nano IS NULL AND e.billing_scope != 'USER' AND NOT (e.status = 'ERROR' AND e.price_status = 'NO_USAGE')) AS unpriced,
    countIf(e.billing_scope = 'USER') AS own_key
FROM usage_events AS e FINAL
WHERE
    -- include: asked
