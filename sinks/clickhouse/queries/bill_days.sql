-- What is known of a provider's bill in [since, until), a row for each account, source and day. "" = of any provider.
SELECT provider, account, source, day, revision, lines, content, is_whole, is_final, file_name, fetched_at
FROM provider_cost_days FINAL
WHERE ({provider:String} = '' OR provider = {provider:String})
    AND ({account:String} = '' OR account = {account:String})
    AND day >= {since:Date} AND day < {until:Date}
ORDER BY provider, account, source, day
