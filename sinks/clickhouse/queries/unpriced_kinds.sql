-- Calls of models without a price, one of each kind: of a day, with the same names and the same units used. What a price
-- book says of one of them it says of all. Void ones are left out; replaced rows may show a kind too many.
SELECT e.* EXCEPT (event_id, version, inserted_at), toString(e.event_id) AS id
FROM usage_events AS e
WHERE e.cost_nano IS NULL AND e.price_status = 'UNKNOWN_MODEL' AND e.status != 'VOID'
LIMIT 1 BY
    toDate(e.event_time), e.model_id, e.provider, e.model_used, e.model_sent, e.deployment, e.api_host, e.region,
    e.operation, e.service_tier, e.processing, e.status = 'BLOCKED',
    e.input_tokens > 0, e.cache_read_tokens > 0, e.cache_write_tokens > 0, e.cache_write_1h_tokens > 0,
    e.output_tokens > 0, arrayMap(unit -> unit.key, e.extra_units)
