-- What a limit would have refused. The calls of one scope in the order in which they are charged, each beside what was
-- used in its period before it: once that has reached the limit a call is refused, and so are all behind it. Calls on
-- users' own keys never count, and a call that was refused anyway is none. `each`: every user, key ... by itself, but for
-- those named in `exempt`, which have another limit.
SELECT
    period,
    who,
    count() AS calls,
    sum(weight) AS used,
    countIf(before >= {amount:Int64}) AS refused,
    minIf(charged, before >= {amount:Int64}) AS first_refused,
    sumIf(ifNull(cost_nano, 0), before >= {amount:Int64}) AS spared_nano,
    countIf(before >= {amount:Int64} AND cost_nano IS NULL) AS spared_unpriced
FROM
(
    SELECT
        *,
        sum(weight) OVER (
            PARTITION BY who, period ORDER BY charged, event_id ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
        ) AS before
    FROM
    (
        SELECT
            e.event_id AS event_id,
            e.cost_nano AS cost_nano,
            least(e.event_time, e.received_at) AS charged,
            multiIf(
                {each:String} = 'user', toString(e.user_id), {each:String} = 'api_key', toString(e.api_key_id),
                {each:String} = 'agent', toString(e.agent), {each:String} = 'session', e.session_id,
                {each:String} = 'run', e.trace_id, '') AS who,
            multiIf(
                {window:String} = 'day', toString(toDate(charged, {zone:String})),
                {window:String} = 'week', toString(toMonday(charged, {zone:String})),
                substring(toString(toDate(charged, {zone:String})), 1, 7)) AS period,
            multiIf(
                {unit:String} = 'USD', ifNull(e.cost_nano, 0) + ifNull(e.at_risk_nano, 0),
                {unit:String} = 'EUR', ifNull(e.cost_eur_nano, 0) + ifNull(e.at_risk_eur_nano, 0),
                {unit:String} = 'RUB', ifNull(e.cost_rub_nano, 0) + ifNull(e.at_risk_rub_nano, 0),
                {unit:String} = 'tokens', e.input_tokens + e.output_tokens,
                1) AS weight
        FROM usage_events AS e FINAL
        WHERE e.event_time >= {since:DateTime64(6, 'UTC')} AND e.event_time < {until:DateTime64(6, 'UTC')}
            AND e.org_id = {org:String} AND ({each:String} = '' OR who != '' AND NOT has({exempt:Array(String)}, who)) AND e.billing_scope != 'USER' AND e.status NOT IN ('BLOCKED', 'VOID')
            -- include: scope
    )
)
GROUP BY period, who
ORDER BY period, who
