-- What some of one user's calls come to. `no_rate` of them have a cost and no rate of their day, `unpriced` have no cost.
    sum(total_tokens) AS total_tokens,
    sum(toInt128(ifNull(nano, 0))) AS known_nano,
    count() AS requests_count,
    countIf(ifNull(no_rate, false)) AS no_rate,
    countIf(unpriced) AS unpriced
