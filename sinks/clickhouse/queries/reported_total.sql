-- One row: stated cost beside ours, of the calls of a period that have both, and how many lack one of them.
SELECT
    count() AS calls,
    countIf(e.reported_cost_nano IS NULL) AS without_reported,
    countIf(e.reported_cost_nano IS NOT NULL AND e.cost_nano IS NULL) AS unpriced,
    countIf(e.reported_cost_nano = e.cost_nano) AS equal,
    countIf(e.reported_cost_nano IS NOT NULL AND e.cost_nano IS NOT NULL) AS compared,
    toDecimal128(sumIf(toInt128(ifNull(e.reported_cost_nano, 0)), e.cost_nano IS NOT NULL), 0) * toDecimal128('0.000000001', 9) AS reported_usd,
    toDecimal128(sumIf(toInt128(ifNull(e.cost_nano, 0)), e.reported_cost_nano IS NOT NULL), 0) * toDecimal128('0.000000001', 9) AS cost_usd
FROM usage_events AS e FINAL
WHERE
    -- include: asked
