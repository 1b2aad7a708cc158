-- The live totals of one organisation in some hours and their minutes, and in some days and months, as WATCH has them.
SELECT level, toInt64(toUnixTimestamp(bucket)) AS start_s, scope, name,
    calls, errors, blocked, unknown_model, input_tokens, cache_read_tokens, output_tokens,
    cost_nano, byok_cost_nano, at_risk_nano, spend_eur_nano, spend_rub_nano, byok_calls, byok_tokens
FROM usage_windows FINAL
WHERE org_id = {org:String} AND has({kinds:Array(String)}, toString(scope))
  AND (level IN ('hour', 'minute') AND bucket >= toDateTime({from:Int64}, 'UTC') AND bucket < toDateTime({until:Int64}, 'UTC')
        AND has({hour:Array(Int64)}, toInt64(toUnixTimestamp(toStartOfHour(bucket))))
    OR level = 'day' AND has({day:Array(Int64)}, toInt64(toUnixTimestamp(bucket)))
    OR level = 'month' AND has({month:Array(Int64)}, toInt64(toUnixTimestamp(bucket))))
ORDER BY level, start_s, scope, name
