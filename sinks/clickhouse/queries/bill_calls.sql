-- Calls of ours behind a difference, a few of them: of a day and, where they are named, a key and a model.
SELECT toString(e.event_id) AS event_id, e.request_id AS request_id, e.event_time AS event_time, e.status AS status,
    e.usage_source AS usage_source, e.input_tokens AS input_tokens, e.output_tokens AS output_tokens, e.cost_nano AS cost_nano
FROM usage_events AS e FINAL
WHERE e.event_time >= {since:DateTime64(6, 'UTC')} AND e.event_time < {until:DateTime64(6, 'UTC')}
    AND e.provider_id = {provider:String} AND e.status NOT IN ('VOID', 'BLOCKED') AND e.billing_scope != 'USER'
    AND (empty({keys:Array(String)}) OR has({keys:Array(String)}, toString(e.api_key_id)))
    AND ({model:String} = '' OR e.model_id = {model:String})
    AND multiIf(
        {which:String} = 'failed', e.status = 'ERROR' AND e.input_tokens + e.output_tokens > 0,
        {which:String} = 'loose', e.status IN ('ERROR', 'CANCELLED') OR e.usage_source IN ('ESTIMATED', 'NONE', 'UNKNOWN'),
        {which:String} = 'unpriced', e.cost_nano IS NULL,
        {which:String} = 'early', toHour(e.event_time, 'UTC') = 0,
        {which:String} = 'late', toHour(e.event_time, 'UTC') = 23,
        true)
ORDER BY e.cost_nano DESC NULLS FIRST, e.event_time, e.event_id
LIMIT {top:UInt32}
