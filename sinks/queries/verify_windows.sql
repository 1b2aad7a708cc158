-- Sealed minutes of organisations: the window beside the ledger, with late rows (all_) and without (live_).
-- `edge` counts rows so close to the horizon that either may be right. Bucket time = min(event_time, received_at).
SELECT
    bucket, org_id,
    sum(w_calls) AS window_calls, sum(l_calls) AS live_calls, sum(a_calls) AS all_calls,
    sum(w_in) AS window_input_tokens, sum(l_in) AS live_input_tokens, sum(a_in) AS all_input_tokens,
    sum(w_out) AS window_output_tokens, sum(l_out) AS live_output_tokens, sum(a_out) AS all_output_tokens,
    sum(w_cost) AS window_cost_nano, sum(l_cost) AS live_cost_nano, sum(a_cost) AS all_cost_nano,
    sum(edge_rows) AS edge
FROM
(
    SELECT
        bucket, org_id,
        calls AS w_calls, 0 AS l_calls, 0 AS a_calls,
        input_tokens AS w_in, 0 AS l_in, 0 AS a_in,
        output_tokens AS w_out, 0 AS l_out, 0 AS a_out,
        cost_nano + byok_cost_nano AS w_cost, 0 AS l_cost, 0 AS a_cost,
        0 AS edge_rows
    FROM usage_windows FINAL
    WHERE level = 'minute' AND scope = 'org' AND priced_partition = {partition:UInt16}
        AND bucket >= toDateTime({from:UInt32}, 'UTC') AND bucket + 60 <= toDateTime({sealed:UInt32}, 'UTC')
    UNION ALL
    SELECT
        toStartOfMinute(charged_at) AS bucket, org_id,
        0, toInt64(countIf(NOT late)), toInt64(count()),
        0, sumIf(input_tokens, NOT late), sum(input_tokens),
        0, sumIf(output_tokens, NOT late), sum(output_tokens),
        0, sumIf(ifNull(cost_nano, 0), NOT late), sum(ifNull(cost_nano, 0)),
        countIf(abs(behind_s - {horizon:Int64}) <= {edge:Int64})
    FROM
    (
        SELECT
            org_id, input_tokens, output_tokens, cost_nano,
            least(event_time, toDateTime64(received_at, 6, 'UTC')) AS charged_at,
            dateDiff('second', charged_at, received_at) AS behind_s,
            behind_s > {horizon:Int64} AS late
        FROM usage_events FINAL
        WHERE priced_partition = {partition:UInt16} AND toInt64(priced_offset) <= {applied:Int64}
            AND event_time >= toDateTime({from:UInt32}, 'UTC')
    )
    WHERE charged_at >= toDateTime({from:UInt32}, 'UTC') AND toStartOfMinute(charged_at) + 60 <= toDateTime({sealed:UInt32}, 'UTC')
    GROUP BY bucket, org_id
)
GROUP BY bucket, org_id
ORDER BY bucket, org_id
