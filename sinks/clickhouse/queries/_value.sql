-- Calls that subscriptions paid, and what those would have cost by the list: never part of a cost. NULL: nobody knows it.
    countIf(e.price_status = 'SUBSCRIPTION') AS subscription_calls,
    sumIf(toInt128(ifNull(e.est_cost_nano, 0)), e.price_status = 'SUBSCRIPTION') AS value_nano,
    if(subscription_calls > 0 AND value_nano = 0, NULL, toDecimal128(roundBankers(toDecimal128(value_nano, 0) * toDecimal128('0.000000001', 9), 4), 4)) AS usd_subscription_value,
