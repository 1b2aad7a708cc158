-- The calls of a span of time as WATCH read them, in the order in which they were made.
SELECT toString(event_id) AS id, event_time, org_id, group_id, user_id, agent, api_key_id, client_ip, model, model_id, provider_id,
    operation_name, status, price_status, billing_scope, input_tokens, cache_read_tokens, output_tokens, cost_nano,
    at_risk_nano, cost_eur_nano, at_risk_eur_nano, cost_rub_nano, at_risk_rub_nano, prompt_hash
FROM usage_events FINAL
WHERE event_time >= {since:DateTime64(6, 'UTC')} AND event_time < {until:DateTime64(6, 'UTC')} AND status != 'VOID'
ORDER BY event_time, org_id, event_id
