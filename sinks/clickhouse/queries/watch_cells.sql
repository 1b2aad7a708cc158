-- The cells of a partition that a fold needs in memory; bucket as Arrow timestamp. Of sessions and runs these are the ones
-- of periods that are not over, and not the empty ones, which are forgotten; but an empty one that is ahead of the
-- progress says that it takes nothing of the log up to its stamp.
SELECT level, toDateTime64(bucket, 3, 'UTC') AS bucket, org_id, scope, name, priced_partition, stamp,
    calls, errors, blocked, unknown_model, input_tokens, cache_read_tokens, output_tokens,
    cost_nano, byok_cost_nano, at_risk_nano, spend_eur_nano, spend_rub_nano, byok_calls, byok_tokens, peak_minute_nano, peak_hour_nano
FROM usage_windows FINAL
WHERE priced_partition = {partition:UInt16}
  AND (level = 'minute' AND usage_windows.bucket >= {minutes_from:DateTime('UTC')}
    OR level = 'hour' AND usage_windows.bucket >= {hours_from:DateTime('UTC')}
    OR level = 'day' AND usage_windows.bucket >= {days_from:DateTime('UTC')}
    OR level = 'month' AND usage_windows.bucket >= {months_from:DateTime('UTC')}
    OR level NOT IN ('minute', 'hour', 'day', 'month') AND usage_windows.bucket >= {extras_from:DateTime('UTC')})
  AND (scope NOT IN ('session', 'run')
    OR (calls != 0 OR stamp > {applied:UInt64}) AND {minutes_from:DateTime('UTC')} <= usage_windows.bucket
        + toIntervalDay(multiIf(startsWith(level, 'day@'), 2, startsWith(level, 'week@'), 8, 32)))
