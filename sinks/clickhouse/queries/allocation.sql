-- Known cost of calls by what they name: feature, user, group, or the value of one tag. '' = they name none. Refused calls
-- and such on users' own keys are nobody's cost here.
SELECT
    multiIf(
        {by:String} = 'feature', toString(e.operation_name),
        {by:String} = 'user', toString(e.user_id),
        {by:String} = 'group', toString(e.group_id),
        arrayFirst(tag -> tag.key = {tag_key:String}, e.tags).value
    ) AS name,
    toInt64(count()) AS calls,
    toInt64(sum(toInt128(ifNull(e.cost_nano, 0)))) AS direct_nano,
    toInt64(countIf(e.cost_nano IS NULL AND NOT (e.status = 'ERROR' AND e.price_status = 'NO_USAGE'))) AS unpriced
FROM usage_events AS e FINAL
WHERE e.status != 'BLOCKED' AND e.billing_scope != 'USER' AND
    -- include: asked
GROUP BY name
ORDER BY name
