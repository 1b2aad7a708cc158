-- One page of the billing page's table, newest first. `user_id` and `org_id` limit it; an empty one does not.
SELECT
    user_id,
    agent AS agent_id,
    provider AS ai_provider,
    model AS ai_model,
    input_tokens AS prompt_tokens,
    output_tokens AS completion_tokens,
    input_tokens + output_tokens AS total_tokens,
    toDecimal128(cost_nano, 0) * toDecimal128('0.000000001', 9) AS cost_usd,
    toDecimal128(cost_rub_nano, 0) * toDecimal128('0.000000001', 9) AS cost_rub,
    event_time AS created_at
FROM usage_events FINAL
WHERE status != 'VOID' AND ({user_id:String} = '' OR user_id = {user_id:String})
    AND ({org_id:String} = '' OR org_id = {org_id:String})
ORDER BY created_at DESC, event_id
LIMIT {limit:UInt32} OFFSET {offset:UInt64}
