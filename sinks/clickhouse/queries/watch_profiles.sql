-- What the rules about identity remember of a partition's scopes; `state` as base64, for Arrow takes it as UTF-8.
SELECT priced_partition, org_id, scope, name, stamp, base64Encode(watch_profiles.state) AS state
FROM watch_profiles FINAL
WHERE priced_partition = {partition:UInt16}
