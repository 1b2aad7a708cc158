-- Known cost; the calls whose cost is not known, which those are not that failed and used nothing; what those may cost.
-- A sum of 0 beside calls of unknown cost is not known.
    sum(toInt128(ifNull(e.cost_nano, 0))) AS known_nano,
    countIf(e.cost_nano IS NULL AND NOT (e.status = 'ERROR' AND e.price_status = 'NO_USAGE')) AS unpriced,
    sum(toInt128(ifNull(e.at_risk_nano, 0))) AS risk_nano,
    if(unpriced > 0 AND known_nano = 0, NULL, known_nano) AS total_nano,
    toDecimal128(roundBankers(toDecimal128(total_nano, 0) * toDecimal128('0.000000001', 9), 4), 4) AS usd_est,
    if(unpriced > 0 AND risk_nano = 0, NULL, toDecimal128(roundBankers(toDecimal128(risk_nano, 0) * toDecimal128('0.000000001', 9), 4), 4)) AS usd_at_risk
