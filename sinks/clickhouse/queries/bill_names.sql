-- Which keys and projects the bills of an account name on days in [since, until).
SELECT DISTINCT key_ref, project
FROM provider_bills
WHERE provider = {provider:String} AND account = {account:String} AND day >= {since:Date} AND day < {until:Date}
ORDER BY key_ref, project
