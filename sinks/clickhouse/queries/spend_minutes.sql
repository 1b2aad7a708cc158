-- Spend of a long period as in `spend`, and in the row `total` = 1 as in `spend_total`: from whole minutes of the rollup, and
-- from the ledger where those are stale and at the period's ends. `first` and `last` are its bounds in whole minutes.
SELECT
    grouping(org_id, provider, model, api_key_id, label, hour, day, week, month) = 511 AS total,
    if(has({by:Array(String)}, 'org'), e.org_id, '') AS org_id,
    if(has({by:Array(String)}, 'provider'), e.provider, '') AS provider,
    if(has({by:Array(String)}, 'model'), e.model, '') AS model,
    if(has({by:Array(String)}, 'key'), e.api_key_id, '') AS api_key_id,
    if(has({by:Array(String)}, 'label'),
        -- include: label
    , '') AS label,
    if(has({by:Array(String)}, 'hour'),
        formatDateTime(toStartOfHour(e.at, {zone:String}), '%Y-%m-%dT%H:%i%z', {zone:String}), '') AS hour,
    if(has({by:Array(String)}, 'day'), toString(toDate(e.at, {zone:String})), '') AS day,
    if(has({by:Array(String)}, 'week'), toString(toMonday(e.at, {zone:String})), '') AS week,
    if(has({by:Array(String)}, 'month'), formatDateTime(e.at, '%Y-%m', {zone:String}), '') AS month,
    sum(e.calls_) AS calls,
    sum(toInt128(e.input_)) AS prompt_tokens,
    sum(toInt128(e.output_)) AS output_tokens,
    sum(e.estimated_) AS estimated,
    sum(e.corrected_) AS corrected,
    arraySort(groupUniqArrayArray(e.books_)) AS price_books,
    min(e.fx_from_) AS fx_from,
    max(e.fx_until_) AS fx_until,
    sum(e.subscription_) AS subscription_calls,
    sum(toInt128(e.value_)) AS value_nano,
    if(subscription_calls > 0 AND value_nano = 0, NULL, toDecimal128(roundBankers(toDecimal128(value_nano, 0) * toDecimal128('0.000000001', 9), 4), 4)) AS usd_subscription_value,
    sum(toInt128(e.cost_)) AS known_nano,
    sum(e.unpriced_) AS unpriced,
    sum(toInt128(e.risk_)) AS risk_nano,
    if(unpriced > 0 AND known_nano = 0, NULL, known_nano) AS total_nano,
    toDecimal128(roundBankers(toDecimal128(total_nano, 0) * toDecimal128('0.000000001', 9), 4), 4) AS usd_est,
    if(unpriced > 0 AND risk_nano = 0, NULL, toDecimal128(roundBankers(toDecimal128(risk_nano, 0) * toDecimal128('0.000000001', 9), 4), 4)) AS usd_at_risk
FROM
(
    SELECT
        toString(m.org_id) AS org_id, toString(m.provider) AS provider, toString(m.model) AS model,
        toString(m.api_key_id) AS api_key_id, m.minute AS at,
        m.calls AS calls_, m.input_tokens AS input_, m.output_tokens AS output_, ifNull(m.estimated, 0) AS estimated_,
        ifNull(m.corrected, 0) AS corrected_, CAST(m.price_books, 'Array(String)') AS books_, m.fx_from AS fx_from_,
        m.fx_until AS fx_until_, m.subscription_calls AS subscription_, m.value_nano AS value_, m.cost_nano AS cost_,
        m.unpriced AS unpriced_, m.at_risk_nano AS risk_
    FROM usage_minutes AS m FINAL
    WHERE m.calls > 0 AND m.minute >= {first:DateTime('UTC')} AND m.minute < {last:DateTime('UTC')}
        AND (empty({orgs:Array(String)}) OR has({orgs:Array(String)}, m.org_id))
        AND ({api_key_id:String} = '' OR m.api_key_id = {api_key_id:String})
        AND toUnixTimestamp(m.minute) NOT IN
            -- include: stale_minutes
    UNION ALL
    SELECT
        toString(e.org_id), toString(e.provider), toString(e.model), toString(e.api_key_id),
        toDateTime(toStartOfMinute(e.event_time), 'UTC') AS minute_,
        count(), sum(e.input_tokens), sum(e.output_tokens), countIf(e.usage_source = 'ESTIMATED'), countIf(e.revision > 1),
        groupUniqArrayIf(toString(e.price_book), e.price_book != ''), min(e.fx_date), max(greatest(e.fx_date, ifNull(e.fx_eur_date, e.fx_date), ifNull(e.fx_rub_date, e.fx_date))),
        countIf(e.price_status = 'SUBSCRIPTION'), sumIf(ifNull(e.est_cost_nano, 0), e.price_status = 'SUBSCRIPTION'),
        sum(ifNull(e.cost_nano, 0)),
        countIf(e.cost_nano IS NULL AND NOT (e.status = 'ERROR' AND e.price_status = 'NO_USAGE')),
        sum(ifNull(e.at_risk_nano, 0))
    FROM usage_events AS e FINAL
    WHERE e.status != 'VOID'
        AND e.event_time >= {since:DateTime64(6, 'UTC')} AND e.event_time < {until:DateTime64(6, 'UTC')}
        AND (empty({orgs:Array(String)}) OR has({orgs:Array(String)}, e.org_id))
        AND ({api_key_id:String} = '' OR e.api_key_id = {api_key_id:String})
        AND (e.event_time < toDateTime64({first:DateTime('UTC')}, 6, 'UTC') OR e.event_time >= toDateTime64({last:DateTime('UTC')}, 6, 'UTC')
            OR toUnixTimestamp(toStartOfMinute(e.event_time)) IN
            -- include: stale_minutes
        )
    GROUP BY e.org_id, e.provider, e.model, e.api_key_id, minute_
) AS e
WHERE {label:String} = '' OR {label:String} =
    -- include: label
GROUP BY GROUPING SETS ((org_id, provider, model, api_key_id, label, hour, day, week, month), ())
ORDER BY total DESC, total_nano DESC NULLS LAST, model, api_key_id, org_id, hour, day, week, month
LIMIT {top:UInt64}
