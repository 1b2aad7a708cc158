-- How many parts of the log were gone before a stage had read them; one row.
SELECT count() AS gaps
FROM line_gaps
