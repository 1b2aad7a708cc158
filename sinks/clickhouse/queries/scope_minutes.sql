-- What one scope spent in each minute of a span of time that it had calls in, and of that up to a moment: known cost and
-- what is at risk.
SELECT toInt64(toUnixTimestamp(toStartOfMinute(e.event_time))) AS minute_s,
    toInt64(sum(toInt128(ifNull(e.cost_nano, 0)) + toInt128(ifNull(e.at_risk_nano, 0)) AS nano)) AS cost_nano,
    toInt64(sumIf(nano, e.event_time <= {first:DateTime64(6, 'UTC')})) AS before_nano
FROM usage_events AS e FINAL
WHERE e.event_time >= {since:DateTime64(6, 'UTC')} AND e.event_time < {until:DateTime64(6, 'UTC')}
    AND e.status != 'VOID' AND e.org_id = {org_id:String}
    -- include: scope
GROUP BY minute_s
ORDER BY minute_s
