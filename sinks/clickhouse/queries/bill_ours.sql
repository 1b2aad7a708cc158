-- The ledger's side of a provider's bill in [since, until), by key, model and day of UTC: calls that the organisation pays
-- for, refused ones left out. Tokens by meter: input is what no cache held.
SELECT
    toDate(e.event_time) AS day,
    toString(e.api_key_id) AS key,
    toString(e.model_id) AS model,
    toInt64(count()) AS calls,
    [sum(fresh), sum(cache_read_tokens), sum(cache_write_tokens), sum(output_tokens)] AS tokens,
    [sum(ifNull(cost_input_nano, 0)), sum(ifNull(cost_cache_read_nano, 0)), sum(ifNull(cost_cache_write_nano, 0)),
        sum(ifNull(cost_output_nano, 0)), sum(ifNull(cost_other_nano, 0))] AS nano,
    sum(ifNull(cost_nano, 0)) AS total_nano,
    toInt64(countIf(cost_nano IS NULL AND fresh + cache_read_tokens + cache_write_tokens + output_tokens > 0)) AS unpriced,
    toInt64(countIf(failed)) AS failed_calls,
    [sumIf(fresh, failed), sumIf(cache_read_tokens, failed), sumIf(cache_write_tokens, failed),
        sumIf(output_tokens, failed)] AS failed_tokens,
    toInt64(countIf(loose)) AS loose_calls,
    [sumIf(fresh, loose), sumIf(cache_read_tokens, loose), sumIf(cache_write_tokens, loose),
        sumIf(output_tokens, loose)] AS loose_tokens,
    [max(fresh), max(cache_read_tokens), max(cache_write_tokens), max(output_tokens)] AS most,
    [sumIf(fresh, early), sumIf(cache_read_tokens, early), sumIf(cache_write_tokens, early),
        sumIf(output_tokens, early)] AS early_tokens,
    [sumIf(fresh, late), sumIf(cache_read_tokens, late), sumIf(cache_write_tokens, late),
        sumIf(output_tokens, late)] AS late_tokens
FROM
(
    SELECT
        e.event_time, e.api_key_id, e.model_id, e.cache_read_tokens, e.cache_write_tokens, e.output_tokens,
        e.cost_nano, e.cost_input_nano, e.cost_cache_read_nano, e.cost_cache_write_nano, e.cost_output_nano, e.cost_other_nano,
        e.input_tokens - e.cache_read_tokens - e.cache_write_tokens AS fresh,
        e.status = 'ERROR' AND e.input_tokens + e.output_tokens > 0 AS failed,
        e.status IN ('ERROR', 'CANCELLED') OR e.usage_source IN ('ESTIMATED', 'NONE')
            OR (e.usage_source = 'UNKNOWN' AND e.input_tokens + e.output_tokens = 0) AS loose,
        toHour(e.event_time, 'UTC') = 0 AS early,
        toHour(e.event_time, 'UTC') = 23 AS late
    FROM usage_events AS e FINAL
    WHERE e.event_time >= {since:DateTime64(6, 'UTC')} AND e.event_time < {until:DateTime64(6, 'UTC')}
        AND e.provider_id = {provider:String} AND e.status NOT IN ('VOID', 'BLOCKED') AND e.billing_scope != 'USER'
) AS e
GROUP BY day, key, model
SETTINGS do_not_merge_across_partitions_select_final = 1  -- an identity never changes its month
