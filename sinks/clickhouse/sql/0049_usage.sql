-- One row per call, duplicates, replaced revisions and void calls gone; maps for tags and units; money in USD beside nano-USD.
CREATE OR REPLACE VIEW usage AS
SELECT
    * EXCEPT (tags, extra_units),
    CAST(arrayMap(pair -> (pair.1, pair.2), tags), 'Map(String, String)') AS tags,
    CAST(arrayMap(pair -> (pair.1, pair.2), extra_units), 'Map(String, Float64)') AS extra_units,
    toDecimal128(cost_nano, 0) * toDecimal128('0.000000001', 9) AS cost_usd,
    toDecimal128(at_risk_nano, 0) * toDecimal128('0.000000001', 9) AS at_risk_usd,
    toStartOfMinute(event_time) AS minute
FROM usage_events FINAL
WHERE status != 'VOID'
