-- When the line last checked itself against its log (`verify`), and when it last found no difference (`verify_clean`).
SELECT name, max(covered_until) AS at
FROM rollup_progress
WHERE name IN ('verify', 'verify_clean')
GROUP BY name
