-- One row: all of one user's calls of a period.
SELECT
    -- include: mine_sums
FROM
    -- include: mine
AS c
