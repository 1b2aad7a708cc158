-- Spend of a long period as in `spend`, and in the row `total` = 1 as in `spend_total`: from whole minutes of the rollup, and
-- from the ledger where those are stale and at the period's ends. `first` and `last` are its bounds in whole minutes. With courses it names no price books
-- and no rates: to read those of every minute takes as long as all sums.
SELECT
    grouping(org_id, provider, model, api_key_id, label, hour, day, week, month) = 511 AS total,
    if(has({by:Array(String)}, 'org'), toString(e.org_id_), '') AS org_id,
    toString(e.provider_) AS provider,
    toString(e.model_) AS model,
    if(has({by:Array(String)}, 'key'), toString(e.api_key_id_), '') AS api_key_id,
    if(has({by:Array(String)}, 'label'), e.label_, '') AS label,
    if(has({by:Array(String)}, 'hour'), e.hour_text_, '') AS hour,
    if(has({by:Array(String)}, 'day'), toString(e.day_), '') AS day,
    if(has({by:Array(String)}, 'week'), toString(toMonday(e.day_)), '') AS week,
    if(has({by:Array(String)}, 'month'), substring(toString(e.day_), 1, 7), '') AS month,
    -- include: sums
FROM
(
    SELECT
        e.* EXCEPT (org_id, api_key_id),
        e.org_id AS org_id_,
        e.api_key_id AS api_key_id_,
        if(has({by:Array(String)}, 'label') OR {label:String} != '',
            -- include: label
        , '') AS label_,
        -- include: step
    FROM
    (
        SELECT
            if(hasAny({by:Array(String)}, ['org', 'label']) OR {label:String} != '', m.org_id, '') AS org_id,
            if(hasAny({by:Array(String)}, ['key', 'label']) OR {label:String} != '', m.api_key_id, '') AS api_key_id,
            if(has({by:Array(String)}, 'provider'), m.provider, '') AS provider_,
            if(has({by:Array(String)}, 'model'), m.model, '') AS model_,
            if(has({by:Array(String)}, 'hour') OR {steps:String} = 'hour',
                toDateTime(toStartOfHour(m.minute, {zone:String}), 'UTC'), toDateTime(0, 'UTC')) AS hour_,
            if(hasAny({by:Array(String)}, ['day', 'week', 'month']) OR {steps:String} = 'day',
                toDate(m.minute, {zone:String}), toDate(0)) AS day_,
            sum(m.calls) AS calls_, sum(m.blocked) AS refused_, sum(toInt128(m.input_tokens)) AS input_,
            sum(toInt128(m.output_tokens)) AS output_, sum(ifNull(m.estimated, 0)) AS estimated_,
            sum(ifNull(m.corrected, 0)) AS corrected_,
            CAST(groupUniqArrayArray(if({steps:String} = '', m.price_books, [])), 'Array(String)') AS books_,
            min(if({steps:String} = '', m.fx_from, NULL)) AS fx_from_, max(if({steps:String} = '', m.fx_until, NULL)) AS fx_until_, sum(m.subscription_calls) AS subscription_,
            sum(toInt128(m.value_nano)) AS value_, sum(toInt128(m.cost_nano)) AS cost_, sum(m.unpriced) AS unpriced_,
            sum(toInt128(m.at_risk_nano)) AS risk_
        FROM usage_minutes AS m FINAL
        WHERE m.calls > 0 AND m.minute >= {first:DateTime('UTC')} AND m.minute < {last:DateTime('UTC')}
            AND (empty({orgs:Array(String)}) OR has({orgs:Array(String)}, m.org_id))
            AND ({api_key_id:String} = '' OR m.api_key_id = {api_key_id:String})
            AND toUnixTimestamp(m.minute) NOT IN
                -- include: stale_minutes
        GROUP BY org_id, api_key_id, provider_, model_, hour_, day_
        UNION ALL
        SELECT
            if(hasAny({by:Array(String)}, ['org', 'label']) OR {label:String} != '', e.org_id, '') AS org_id,
            if(hasAny({by:Array(String)}, ['key', 'label']) OR {label:String} != '', e.api_key_id, '') AS api_key_id,
            if(has({by:Array(String)}, 'provider'), e.provider, '') AS provider_,
            if(has({by:Array(String)}, 'model'), e.model, '') AS model_,
            if(has({by:Array(String)}, 'hour') OR {steps:String} = 'hour',
                toDateTime(toStartOfHour(e.event_time, {zone:String}), 'UTC'), toDateTime(0, 'UTC')) AS hour_,
            if(hasAny({by:Array(String)}, ['day', 'week', 'month']) OR {steps:String} = 'day',
                toDate(e.event_time, {zone:String}), toDate(0)) AS day_,
            -- include: summed
        FROM usage_events AS e FINAL
        WHERE e.status != 'VOID'
            AND e.event_time >= {since:DateTime64(6, 'UTC')} AND e.event_time < {until:DateTime64(6, 'UTC')}
            AND (empty({orgs:Array(String)}) OR has({orgs:Array(String)}, e.org_id))
            AND ({api_key_id:String} = '' OR e.api_key_id = {api_key_id:String})
            AND (e.event_time < toDateTime64({first:DateTime('UTC')}, 6, 'UTC') OR e.event_time >= toDateTime64({last:DateTime('UTC')}, 6, 'UTC')
                OR toUnixTimestamp(toStartOfMinute(e.event_time)) IN
                -- include: stale_minutes
            )
        GROUP BY org_id, api_key_id, provider_, model_, hour_, day_
    ) AS e
) AS e
WHERE {label:String} = '' OR {label:String} = e.label_
GROUP BY GROUPING SETS ((org_id, provider, model, api_key_id, label, hour, day, week, month), ())
ORDER BY total DESC, total_nano DESC NULLS LAST, model, api_key_id, org_id, hour, day, week, month
LIMIT {top:UInt64}
