-- The live totals of one organisation in every hour of some days, or every day of some months, as WATCH has them.
SELECT toInt64(toUnixTimestamp(bucket)) AS start_s, scope, name,
    calls, errors, blocked, unknown_model, input_tokens, cache_read_tokens, output_tokens,
    cost_nano, byok_cost_nano, at_risk_nano, spend_eur_nano, spend_rub_nano, byok_calls, byok_tokens
FROM usage_windows FINAL
WHERE level = {level:String} AND org_id = {org:String} AND has({kinds:Array(String)}, toString(scope))
  AND bucket >= toDateTime({from:Int64}, 'UTC') AND bucket < toDateTime({until:Int64}, 'UTC')
  AND has({starts:Array(Int64)}, toInt64(toUnixTimestamp(dateTrunc({within:String}, bucket, 'UTC'), 'UTC')))
ORDER BY start_s, scope, name
