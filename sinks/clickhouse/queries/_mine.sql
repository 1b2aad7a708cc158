-- One user's calls of a period, what each cost in one currency, and why it is not known: no cost, or no exchange rate.
(
    SELECT
        e.event_time AS at,
        toString(e.event_id) AS id,
        e.user_id AS user_id,
        e.agent AS agent_id,
        e.provider AS ai_provider,
        e.model AS ai_model,
        e.input_tokens AS prompt_tokens,
        e.output_tokens AS completion_tokens,
        greatest(toInt128(e.input_tokens) + e.output_tokens, ifNull(e.total_tokens, 0)) AS total_tokens,
        multiIf({currency:String} = 'usd', e.cost_nano, {currency:String} = 'eur', e.cost_eur_nano, e.cost_rub_nano) AS nano,
        e.cost_nano IS NULL AND NOT (e.status = 'ERROR' AND e.price_status = 'NO_USAGE') AS unpriced,
        e.cost_nano > 0 AND nano IS NULL AS no_rate,
        e.received_at AS received_at
    FROM usage_events AS e FINAL
    WHERE e.status != 'VOID' AND e.user_id = {user_id:String} AND has({orgs:Array(String)}, e.org_id)
        AND e.event_time >= {since:DateTime64(6, 'UTC')} AND e.event_time < {until:DateTime64(6, 'UTC')}
)
