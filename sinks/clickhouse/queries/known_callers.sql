-- Who called, by the end of an id: keys, addresses or users seen in the last 400 days, the latest first.
SELECT org_id, name, max(last_seen) AS last_seen
FROM (
    SELECT
        org_id,
        multiIf({scope:String} = 'api_key', api_key_id, {scope:String} = 'client_ip', client_ip, user_id) AS name,
        event_time AS last_seen
    FROM usage_events FINAL
    WHERE status != 'VOID' AND event_time >= now() - INTERVAL 400 DAY AND ({org:String} = '*' OR org_id = {org:String})
)
WHERE name != '' AND endsWith(name, {suffix:String})
GROUP BY org_id, name
ORDER BY last_seen DESC, org_id, name
LIMIT 20
