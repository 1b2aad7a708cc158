-- The newest exchange rate of `day` or before of each currency that has one: nano-units for one USD.
SELECT currency, argMax(per_usd_nano, day) AS per_usd_nano
FROM fx_rates
WHERE day <= {day:Date}
GROUP BY currency
