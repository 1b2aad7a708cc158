-- What was charged to one scope of an organisation in a period, by operation: org-billed calls that were made.
-- `spent` is in nano-units of the currency and counts as limits do: known cost and the estimate of the unpriced calls.
SELECT
    e.operation_name AS operation_name,
    count() AS calls,
    sum(greatest(toInt128(e.input_tokens) + e.output_tokens, ifNull(e.total_tokens, 0))) AS total_tokens,
    countIf(e.cost_nano IS NOT NULL OR (e.status = 'ERROR' AND e.price_status = 'NO_USAGE')) AS priced,
    sum(toInt128(ifNull(e.cost_nano, 0))) AS cost_nano,
    sum(toInt128(ifNull(e.at_risk_nano, 0))) AS at_risk_nano,
    sum(multiIf(
        {currency:String} = 'EUR', toInt128(ifNull(e.cost_eur_nano, 0)) + ifNull(e.at_risk_eur_nano, 0),
        {currency:String} = 'RUB', toInt128(ifNull(e.cost_rub_nano, 0)) + ifNull(e.at_risk_rub_nano, 0),
        toInt128(ifNull(e.cost_nano, 0)) + ifNull(e.at_risk_nano, 0))) AS spent
FROM usage_events AS e FINAL
WHERE e.event_time >= {since:DateTime64(6, 'UTC')} AND least(e.event_time, e.received_at) < {until:DateTime64(6, 'UTC')}
    AND e.org_id = {org_id:String} AND e.billing_scope != 'USER' AND e.status NOT IN ('BLOCKED', 'VOID')
    -- include: scope
GROUP BY operation_name
ORDER BY spent DESC, operation_name
