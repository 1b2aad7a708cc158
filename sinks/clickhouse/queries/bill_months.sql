-- Which bills there are of days since a month began.
SELECT DISTINCT provider, toStartOfMonth(day) AS month
FROM provider_bills
WHERE day >= {since:Date}
ORDER BY provider, month
