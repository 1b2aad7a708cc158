-- The lines of providers' bills that count, with the day they were fetched.
CREATE VIEW IF NOT EXISTS provider_bills AS
SELECT c.*, d.is_whole AS is_whole, d.is_final AS is_final, d.fetched_at AS fetched_at
FROM (SELECT * FROM provider_costs FINAL) AS c
INNER JOIN (SELECT * FROM provider_cost_days FINAL) AS d
    ON c.provider = d.provider AND c.account = d.account AND c.source = d.source AND c.day = d.day AND c.revision = d.revision
