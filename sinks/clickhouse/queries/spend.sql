-- Spend of a period by any of these columns, dearest first: those that `by` does not name are empty. Hours,
-- days, weeks (by their Monday) and months are of `zone`. The first row, `total` = 1, is the whole period of the same
-- reading: a second one would already know later calls.
SELECT
    grouping(org_id, group_id, user_id, agent, session_id, repository, operation_name, service, provider, model, api_key_id, label,
        client_ip, status, hour, day, week, month) = 262143 AS total,
    if(has({by:Array(String)}, 'org'), e.org_id, '') AS org_id,
    if(has({by:Array(String)}, 'group'), e.group_id, '') AS group_id,
    if(has({by:Array(String)}, 'user'), e.user_id, '') AS user_id,
    if(has({by:Array(String)}, 'agent'), e.agent, '') AS agent,
    if(has({by:Array(String)}, 'session'), e.session_id, '') AS session_id,
    if(has({by:Array(String)}, 'repository'), arrayFirst(tag -> tag.1 = 'repository', e.tags).2, '') AS repository,
    if(hasAny({by:Array(String)}, ['operation', 'feature']), e.operation_name, '') AS operation_name,
    if(has({by:Array(String)}, 'service'), e.service, '') AS service,
    if(has({by:Array(String)}, 'provider'), e.provider, '') AS provider,
    if(has({by:Array(String)}, 'model'), if(e.model_used = '', e.model_sent, e.model_used), '') AS model,
    if(has({by:Array(String)}, 'key'), e.api_key_id, '') AS api_key_id,
    if(has({by:Array(String)}, 'label'),
        -- include: label
    , '') AS label,
    if(has({by:Array(String)}, 'ip'), e.client_ip, '') AS client_ip,
    if(has({by:Array(String)}, 'status'), e.status, '') AS status,
    if(has({by:Array(String)}, 'hour'),
        formatDateTime(toStartOfHour(e.event_time, {zone:String}), '%Y-%m-%dT%H:%i%z', {zone:String}), '') AS hour,
    if(has({by:Array(String)}, 'day'), toString(toDate(e.event_time, {zone:String})), '') AS day,
    if(has({by:Array(String)}, 'week'), toString(toMonday(e.event_time, {zone:String})), '') AS week,
    if(has({by:Array(String)}, 'month'), formatDateTime(e.event_time, '%Y-%m', {zone:String}), '') AS month,
    count() AS calls,
    sum(toInt128(e.input_tokens)) AS prompt_tokens,
    sum(toInt128(e.output_tokens)) AS output_tokens,
    -- include: doubts
    -- include: value
    -- include: cost
FROM usage_events AS e FINAL
WHERE
    -- include: asked
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
