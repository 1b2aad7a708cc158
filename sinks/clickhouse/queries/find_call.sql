-- A call by the service's id, the provider's id or the event's id: the whole ledger row and the rule that priced it; of
-- these organisations (none = all), and of this user ('' = of all).
SELECT e.*, r.rule AS price_rule
FROM (
    SELECT *
    FROM usage
    WHERE (request_id = {id:String} OR provider_request_id = {id:String} OR event_id = toUUIDOrNull({id:String}))
        AND (empty({orgs:Array(String)}) OR has({orgs:Array(String)}, org_id))
        AND ({user_id:String} = '' OR user_id = {user_id:String})
    ORDER BY event_time
    LIMIT 100
) AS e
LEFT JOIN (SELECT price_book, rule_id, rule FROM price_rules FINAL) AS r
    ON r.price_book = e.price_book AND r.rule_id = e.rule_id
