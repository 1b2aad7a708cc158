-- What must not change of the calls that arrived before somebody is forgotten: calls, tokens and cost, and a hash over all that counts of the calls.
SELECT toInt64(count()) AS calls, toInt64(sum(toInt128(e.input_tokens + e.output_tokens))) AS tokens,
    toInt64(sum(toInt128(ifNull(e.cost_nano, 0)))) AS cost_nano,
    toString(groupBitXor(sipHash64(tuple(e.event_time, e.org_id, e.event_id, e.cost_nano, e.input_tokens, e.output_tokens)))) AS content
FROM usage_events AS e FINAL
WHERE e.status != 'VOID' AND e.received_at < {before:DateTime64(6, 'UTC')}
    AND ({org_id:String} = '' OR e.org_id = {org_id:String})
