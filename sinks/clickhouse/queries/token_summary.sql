-- One row: tokens, cost in RUB (where a rate is known) and requests of today, this month and all time, UTC.
-- `user_id` and `org_id` limit it; an empty one does not.
SELECT
    sumIf(tokens, at >= today) AS today_total_tokens,
    toDecimal128(roundBankers(toDecimal128(sumIf(rub_nano, at >= today), 0) * toDecimal128('0.000000001', 9), 4), 4) AS today_cost_rub,
    countIf(at >= today) AS today_requests_count,
    sumIf(tokens, at >= month) AS this_month_total_tokens,
    toDecimal128(roundBankers(toDecimal128(sumIf(rub_nano, at >= month), 0) * toDecimal128('0.000000001', 9), 4), 4) AS this_month_cost_rub,
    countIf(at >= month) AS this_month_requests_count,
    sum(tokens) AS all_time_total_tokens,
    toDecimal128(roundBankers(toDecimal128(sum(rub_nano), 0) * toDecimal128('0.000000001', 9), 4), 4) AS all_time_cost_rub,
    count() AS all_time_requests_count
FROM
(
    SELECT
        event_time AS at,
        toInt128(input_tokens) + output_tokens AS tokens,
        toInt128(ifNull(cost_rub_nano, 0)) AS rub_nano,
        toDateTime64(toDate({now:DateTime64(6, 'UTC')}), 6, 'UTC') AS today,
        toDateTime64(toStartOfMonth({now:DateTime64(6, 'UTC')}), 6, 'UTC') AS month
    FROM usage_events FINAL
    WHERE status != 'VOID' AND event_time <= {now:DateTime64(6, 'UTC')}
        AND ({user_id:String} = '' OR user_id = {user_id:String})
        AND ({org_id:String} = '' OR org_id = {org_id:String})
)
