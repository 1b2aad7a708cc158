-- Computes these minutes (seconds since 1970) from the ledger. A group that a correction emptied gets a row of zeros.
INSERT INTO usage_minutes
(
    minute, org_id, api_key_id, provider, model, billing_scope, calls, errors, blocked, unpriced, input_tokens,
    cache_read_tokens, cache_write_tokens, output_tokens, reasoning_tokens, cost_nano, at_risk_nano, cost_eur_nano,
    cost_rub_nano, computed_at, estimated, corrected, subscription_calls, value_nano, price_books, fx_from, fx_until
)
SELECT
    minute_, org_id_, api_key_id_, provider_, model_, billing_scope_,
    sum(calls_), sum(errors_), sum(blocked_), sum(unpriced_),
    sum(input_), sum(cache_read_), sum(cache_write_), sum(output_), sum(reasoning_),
    sum(cost_), sum(at_risk_), sum(eur_), sum(rub_),
    now64(6, 'UTC'),
    sum(estimated_), sum(corrected_), sum(subscription_), sum(value_), arraySort(groupUniqArrayArray(books_)), min(fx_from_), max(fx_until_)
FROM
(
    SELECT
        toStartOfMinute(e.event_time) AS minute_, e.org_id AS org_id_, e.api_key_id AS api_key_id_,
        e.provider AS provider_, e.model AS model_, e.billing_scope AS billing_scope_,
        count() AS calls_, countIf(e.status = 'ERROR') AS errors_, countIf(e.status = 'BLOCKED') AS blocked_,
        countIf(e.cost_nano IS NULL AND NOT (e.status = 'ERROR' AND e.price_status = 'NO_USAGE')) AS unpriced_,
        sum(e.input_tokens) AS input_, sum(e.cache_read_tokens) AS cache_read_,
        sum(e.cache_write_tokens) AS cache_write_, sum(e.output_tokens) AS output_, sum(e.reasoning_tokens) AS reasoning_,
        sum(ifNull(e.cost_nano, 0)) AS cost_, sum(ifNull(e.at_risk_nano, 0)) AS at_risk_,
        sum(ifNull(e.cost_eur_nano, 0)) AS eur_, sum(ifNull(e.cost_rub_nano, 0)) AS rub_,
        countIf(e.usage_source = 'ESTIMATED') AS estimated_, countIf(e.revision > 0) AS corrected_,
        countIf(e.price_status = 'SUBSCRIPTION') AS subscription_,
        sumIf(ifNull(e.est_cost_nano, 0), e.price_status = 'SUBSCRIPTION') AS value_,
        groupUniqArrayIf(toString(e.price_book), e.price_book != '') AS books_,
        min(e.fx_date) AS fx_from_, max(greatest(e.fx_date, ifNull(e.fx_eur_date, e.fx_date), ifNull(e.fx_rub_date, e.fx_date))) AS fx_until_
    FROM usage_events AS e FINAL
    WHERE e.status != 'VOID' AND e.event_time >= toDateTime64(arrayMin({minutes:Array(UInt32)}), 6, 'UTC')
        AND e.event_time < toDateTime64(arrayMax({minutes:Array(UInt32)}) + 60, 6, 'UTC')
        AND toUnixTimestamp(toStartOfMinute(e.event_time)) IN {minutes:Array(UInt32)}
    GROUP BY minute_, org_id_, api_key_id_, provider_, model_, billing_scope_
    UNION ALL
    SELECT DISTINCT
        m.minute, m.org_id, m.api_key_id, m.provider, m.model, m.billing_scope,
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, CAST([], 'Array(String)'), NULL, NULL
    FROM usage_minutes AS m
    WHERE m.minute >= toDateTime(arrayMin({minutes:Array(UInt32)}), 'UTC')
        AND m.minute <= toDateTime(arrayMax({minutes:Array(UInt32)}), 'UTC')
        AND toUnixTimestamp(m.minute) IN {minutes:Array(UInt32)}
)
GROUP BY minute_, org_id_, api_key_id_, provider_, model_, billing_scope_
