-- How many calls each minute has of those that are to be priced again.
SELECT toStartOfMinute(e.event_time) AS minute, toInt64(count()) AS calls
FROM usage_events AS e FINAL
WHERE (NOT {unpriced:Bool} OR e.cost_nano IS NULL) AND
    (empty({unknown:Array(String)}) OR (e.price_status = 'UNKNOWN_MODEL' AND has({unknown:Array(String)}, e.model_id))) AND
    (empty({currencies:Array(String)}) OR
        -- include: unrated
    ) AND
    -- include: asked
GROUP BY minute
ORDER BY minute
