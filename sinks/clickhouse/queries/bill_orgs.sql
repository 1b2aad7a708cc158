-- How many calls of a provider in [since, until) are of other organisations than these; none = all are meant.
SELECT toInt64(count()) AS others
FROM usage_events AS e
WHERE e.event_time >= {since:DateTime64(6, 'UTC')} AND e.event_time < {until:DateTime64(6, 'UTC')}
    AND e.provider_id = {provider:String} AND e.status NOT IN ('VOID', 'BLOCKED') AND e.billing_scope != 'USER'
    AND notEmpty({orgs:Array(String)}) AND NOT has({orgs:Array(String)}, e.org_id)
