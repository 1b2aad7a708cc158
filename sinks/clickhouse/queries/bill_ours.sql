-- The ledger's side of a provider's bill in [since, until), by key, model and day of UTC: calls that the organisation pays
-- for, refused ones left out. Tokens by meter: input is what no cache held. Summed once by what a call is, then together.
SELECT
    day, key, model,
    toInt64(sum(count)) AS calls,
    [sum(fresh), sum(cached), sum(written), sum(output)] AS tokens,
    [sum(nano_input), sum(nano_read), sum(nano_write), sum(nano_output), sum(nano_other)] AS nano,
    sum(nano_total) AS total_nano,
    toInt64(sum(unknown)) AS unpriced,
    toInt64(sumIf(count, failed)) AS failed_calls,
    [sumIf(fresh, failed), sumIf(cached, failed), sumIf(written, failed), sumIf(output, failed)] AS failed_tokens,
    toInt64(sumIf(count, loose)) AS loose_calls,
    [sumIf(fresh, loose), sumIf(cached, loose), sumIf(written, loose), sumIf(output, loose)] AS loose_tokens,
    [max(most_fresh), max(most_cached), max(most_written), max(most_output)] AS most,
    [sumIf(fresh, hour = 0), sumIf(cached, hour = 0), sumIf(written, hour = 0), sumIf(output, hour = 0)] AS early_tokens,
    [sumIf(fresh, hour = 23), sumIf(cached, hour = 23), sumIf(written, hour = 23), sumIf(output, hour = 23)] AS late_tokens
FROM
(
    SELECT
        toDate(e.event_time) AS day, toString(e.api_key_id) AS key, toString(e.model_id) AS model,
        toHour(e.event_time, 'UTC') AS hour,
        e.status = 'ERROR' AND e.input_tokens + e.output_tokens > 0 AS failed,
        e.status IN ('ERROR', 'CANCELLED') OR e.usage_source IN ('ESTIMATED', 'NONE')
            OR (e.usage_source = 'UNKNOWN' AND e.input_tokens + e.output_tokens = 0) AS loose,
        count() AS count,
        sum(e.input_tokens - e.cache_read_tokens - e.cache_write_tokens) AS fresh,
        sum(e.cache_read_tokens) AS cached, sum(e.cache_write_tokens) AS written, sum(e.output_tokens) AS output,
        sum(ifNull(e.cost_input_nano, 0)) AS nano_input, sum(ifNull(e.cost_cache_read_nano, 0)) AS nano_read,
        sum(ifNull(e.cost_cache_write_nano, 0)) AS nano_write, sum(ifNull(e.cost_output_nano, 0)) AS nano_output,
        sum(ifNull(e.cost_other_nano, 0)) AS nano_other, sum(ifNull(e.cost_nano, 0)) AS nano_total,
        countIf(e.cost_nano IS NULL AND e.input_tokens + e.output_tokens > 0) AS unknown,
        max(e.input_tokens - e.cache_read_tokens - e.cache_write_tokens) AS most_fresh,
        max(e.cache_read_tokens) AS most_cached, max(e.cache_write_tokens) AS most_written, max(e.output_tokens) AS most_output
    FROM usage_events AS e FINAL
    WHERE e.event_time >= {since:DateTime64(6, 'UTC')} AND e.event_time < {until:DateTime64(6, 'UTC')}
        AND e.provider_id = {provider:String} AND e.status NOT IN ('VOID', 'BLOCKED') AND e.billing_scope != 'USER'
    GROUP BY day, key, model, hour, failed, loose
)
GROUP BY day, key, model
SETTINGS do_not_merge_across_partitions_select_final = 1  -- an identity never changes its month
