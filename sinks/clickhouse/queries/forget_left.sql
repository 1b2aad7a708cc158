-- Where a user or an address is still named, a row a place: rows of any version, whether or not they count.
SELECT 'ledger' AS place, toInt64(count()) AS rows FROM usage_events
WHERE if({what:String} = 'user', user_id, client_ip) = {name:String} AND ({org_id:String} = '' OR org_id = {org_id:String})
UNION ALL
SELECT 'windows' AS place, toInt64(count()) AS rows FROM usage_windows
WHERE scope = if({what:String} = 'user', 'user', 'client_ip') AND name = {name:String} AND ({org_id:String} = '' OR org_id = {org_id:String})
UNION ALL
SELECT 'alerts' AS place, toInt64(count()) AS rows FROM alerts
WHERE scope = if({what:String} = 'user', 'user', 'client_ip') AND name = {name:String} AND ({org_id:String} = '' OR org_id = {org_id:String})
UNION ALL
SELECT 'calls of the windows' AS place, toInt64(sum(calls)) AS rows FROM usage_windows FINAL
WHERE level = 'month' AND scope = if({what:String} = 'user', 'user', 'client_ip') AND name = {name:String}
    AND ({org_id:String} = '' OR org_id = {org_id:String})
UNION ALL
SELECT 'profiles' AS place, toInt64(count()) AS rows FROM watch_profiles
WHERE scope IN (if({what:String} = 'user', 'user', 'client_ip'), if({what:String} = 'user', 'series/user', 'series/client_ip'))
    AND name = {name:String} AND ({org_id:String} = '' OR org_id = {org_id:String})
UNION ALL
SELECT 'policies' AS place, toInt64(count()) AS rows FROM watch_policies
WHERE
    -- include: forget_rule
UNION ALL
SELECT 'policies in force' AS place, toInt64(count()) AS rows FROM watch_policies FINAL
WHERE NOT deleted AND
    -- include: forget_rule
UNION ALL
SELECT 'texts of alerts' AS place, toInt64(count()) AS rows FROM alerts
WHERE match(event, {word:String}) AND ({org_id:String} = '' OR org_id = {org_id:String})
UNION ALL
SELECT 'texts that people got' AS place, toInt64(count()) AS rows FROM alert_states
WHERE (match(title, {word:String}) OR match(body, {word:String}))
    AND ({org_id:String} = '' OR id IN (SELECT id FROM alerts WHERE org_id = {org_id:String}))
