-- Spend of a period by any of these columns, dearest first: those that `by` does not name are empty. Hours,
-- days, weeks (by their Monday) and months are of `zone`. The first row, `total` = 1, is the whole period of the same
-- reading: a second one would already know later calls.
SELECT
    grouping(org_id, group_id, user_id, agent, session_id, repository, operation_name, service, provider, model, api_key_id, label,
        client_ip, status, hour, day, week, month) = 262143 AS total,
    if(has({by:Array(String)}, 'org'), toString(e.org_id_), '') AS org_id,
    toString(e.group_id_) AS group_id,
    toString(e.user_id_) AS user_id,
    toString(e.agent_) AS agent,
    e.session_id_ AS session_id,
    e.repository_ AS repository,
    toString(e.operation_name_) AS operation_name,
    toString(e.service_) AS service,
    toString(e.provider_) AS provider,
    toString(e.model_) AS model,
    if(has({by:Array(String)}, 'key'), toString(e.api_key_id_), '') AS api_key_id,
    e.label_ AS label,
    e.client_ip_ AS client_ip,
    toString(e.status_) AS status,
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
        if(has({by:Array(String)}, 'label'),
            -- include: label
        , '') AS label_,
        -- include: step
    FROM
    (
        SELECT
            if(hasAny({by:Array(String)}, ['org', 'label']), e.org_id, '') AS org_id,
            if(hasAny({by:Array(String)}, ['key', 'label']), e.api_key_id, '') AS api_key_id,
            if(has({by:Array(String)}, 'group'), e.group_id, '') AS group_id_,
            if(has({by:Array(String)}, 'user'), e.user_id, '') AS user_id_,
            if(has({by:Array(String)}, 'agent'), e.agent, '') AS agent_,
            if(has({by:Array(String)}, 'session'), e.session_id, '') AS session_id_,
            if(has({by:Array(String)}, 'repository'), arrayFirst(tag -> tag.1 = 'repository', e.tags).2, '') AS repository_,
            if(hasAny({by:Array(String)}, ['operation', 'feature']), e.operation_name, '') AS operation_name_,
            if(has({by:Array(String)}, 'service'), e.service, '') AS service_,
            if(has({by:Array(String)}, 'provider'), e.provider, '') AS provider_,
            if(has({by:Array(String)}, 'model'), if(e.model_used = '', e.model_sent, e.model_used), '') AS model_,
            if(has({by:Array(String)}, 'ip'), e.client_ip, '') AS client_ip_,
            if(has({by:Array(String)}, 'status'), e.status, '') AS status_,
            if(has({by:Array(String)}, 'hour') OR {steps:String} = 'hour',
                toDateTime(toStartOfHour(e.event_time, {zone:String}), 'UTC'), toDateTime(0, 'UTC')) AS hour_,
            if(hasAny({by:Array(String)}, ['day', 'week', 'month']) OR {steps:String} = 'day',
                toDate(e.event_time, {zone:String}), toDate(0)) AS day_,
            -- include: summed
        FROM usage_events AS e FINAL
        WHERE
            -- include: asked
        GROUP BY org_id, api_key_id, group_id_, user_id_, agent_, session_id_, repository_, operation_name_, service_,
            provider_, model_, client_ip_, status_, hour_, day_
    ) AS e
) AS e
GROUP BY GROUPING SETS
(
    (
        org_id, group_id, user_id, agent, session_id, repository, operation_name, service, provider, model, api_key_id, label,
        client_ip, status, hour, day, week, month
    ),
    ()
)
ORDER BY total DESC, total_nano DESC NULLS LAST, model, api_key_id, user_id, org_id, client_ip, session_id, repository, hour, day, week, month
LIMIT {top:UInt64}
