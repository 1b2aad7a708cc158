-- The statements of an organisation ('' = of all together), the oldest first.
SELECT month, number, state, reason, content, hash, written_at
FROM statements FINAL
WHERE org_id = {org_id:String}
ORDER BY month, number
