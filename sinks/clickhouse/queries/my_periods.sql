-- One user's tokens, cost and requests of today, this month and all time; a period without calls has no row.
SELECT
    p.1 AS period,
    -- include: mine_sums
FROM
    -- include: mine
AS c
ARRAY JOIN [('today', {today:DateTime64(6, 'UTC')}), ('this_month', {month:DateTime64(6, 'UTC')}), ('all_time', {since:DateTime64(6, 'UTC')})] AS p
WHERE c.at >= p.2
GROUP BY period
