-- One row: tokens, cost in RUB and requests of today, this month and all time, whose days and months are those of `zone`.
-- A cost of 0 beside calls whose cost in RUB is unknown is NULL; those that failed and used nothing are not such calls.
-- `user_id` and `org_id` limit it; an empty one does not.
SELECT
    sumIf(tokens, at >= today) AS today_total_tokens,
    if(today_unpriced > 0 AND today_nano = 0, NULL, toDecimal128(roundBankers(toDecimal128(sumIf(rub_nano, at >= today) AS today_nano, 0) * toDecimal128('0.000000001', 9), 4), 4)) AS today_cost_rub,
    countIf(at >= today) AS today_requests_count,
    countIf(at >= today AND unknown) AS today_unpriced,
    toDecimal128(roundBankers(toDecimal128(sumIf(risk_nano, at >= today), 0) * toDecimal128('0.000000001', 9), 4), 4) AS today_rub_at_risk,
    sumIf(tokens, at >= month) AS this_month_total_tokens,
    if(this_month_unpriced > 0 AND month_nano = 0, NULL, toDecimal128(roundBankers(toDecimal128(sumIf(rub_nano, at >= month) AS month_nano, 0) * toDecimal128('0.000000001', 9), 4), 4)) AS this_month_cost_rub,
    countIf(at >= month) AS this_month_requests_count,
    countIf(at >= month AND unknown) AS this_month_unpriced,
    toDecimal128(roundBankers(toDecimal128(sumIf(risk_nano, at >= month), 0) * toDecimal128('0.000000001', 9), 4), 4) AS this_month_rub_at_risk,
    sum(tokens) AS all_time_total_tokens,
    if(all_time_unpriced > 0 AND all_nano = 0, NULL, toDecimal128(roundBankers(toDecimal128(sum(rub_nano) AS all_nano, 0) * toDecimal128('0.000000001', 9), 4), 4)) AS all_time_cost_rub,
    count() AS all_time_requests_count,
    countIf(unknown) AS all_time_unpriced,
    toDecimal128(roundBankers(toDecimal128(sum(risk_nano), 0) * toDecimal128('0.000000001', 9), 4), 4) AS all_time_rub_at_risk
FROM
(
    SELECT
        event_time AS at,
        greatest(toInt128(input_tokens) + output_tokens, ifNull(total_tokens, 0)) AS tokens,
        toInt128(ifNull(cost_rub_nano, 0)) AS rub_nano,
        toInt128(ifNull(at_risk_rub_nano, 0)) AS risk_nano,
        cost_rub_nano IS NULL AND NOT (status = 'ERROR' AND price_status = 'NO_USAGE') AS unknown,
        {today:DateTime64(6, 'UTC')} AS today,
        {month:DateTime64(6, 'UTC')} AS month
    FROM usage_events FINAL
    WHERE status != 'VOID' AND event_time <= {now:DateTime64(6, 'UTC')}
        AND ({user_id:String} = '' OR user_id = {user_id:String})
        AND ({org_id:String} = '' OR org_id = {org_id:String})
)
