-- The calls of a span as they are now, whole, without void ones, in any order: to sort them here costs more than to
-- read them. `unpriced`: those whose cost is not known.
SELECT e.* EXCEPT (event_id, version, inserted_at), toString(e.event_id) AS id
FROM usage_events AS e FINAL
WHERE (NOT {unpriced:Bool} OR e.cost_nano IS NULL) AND
    (empty({unknown:Array(String)}) OR (e.price_status = 'UNKNOWN_MODEL' AND has({unknown:Array(String)}, e.model_id))) AND
    (empty({currencies:Array(String)}) OR
        -- include: unrated
    ) AND
    -- include: asked
