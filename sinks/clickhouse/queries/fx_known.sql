-- For which currencies some price book has an exchange rate of `day` or before.
SELECT DISTINCT currency
FROM fx_rates
WHERE day <= {day:Date}
