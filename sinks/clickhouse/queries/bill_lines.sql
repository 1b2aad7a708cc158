-- The lines that count of a provider's bill in [since, until).
SELECT c.account, c.source, c.day, c.key_ref, c.principal, c.project, c.model, c.line_item, c.meter, c.quantity,
    c.unit, c.amount, c.currency, c.amount_usd
FROM provider_costs AS c FINAL
WHERE c.provider = {provider:String} AND c.day >= {since:Date} AND c.day < {until:Date}
    AND (c.account, c.source, c.day, c.revision) IN
        (SELECT account, source, day, revision FROM provider_cost_days FINAL WHERE provider = {provider:String})
    AND ({account:String} = '' OR c.account = {account:String})
ORDER BY c.account, c.source, c.day, c.line
