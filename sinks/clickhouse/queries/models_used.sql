-- The models that an organisation has called, and when last.
SELECT
    if(e.model_used = '', e.model_sent, e.model_used) AS model,
    e.provider AS ai_provider,
    count() AS calls,
    max(e.event_time) AS last_used_at
FROM usage_events AS e FINAL
WHERE
    -- include: asked
GROUP BY model, ai_provider
ORDER BY calls DESC, model, ai_provider
