-- Calls whose amount in one of these currencies waits for a rate. Rows of format 1 have one day for both.
(
    (has({currencies:Array(String)}, 'EUR')
        AND ((e.cost_nano IS NOT NULL AND e.cost_eur_nano IS NULL)
            OR (e.cost_nano IS NULL AND e.at_risk_nano IS NOT NULL AND e.fx_eur_date IS NULL
                AND (e.fx_date IS NULL OR e.fx_rub_date IS NOT NULL))))
    OR (has({currencies:Array(String)}, 'RUB')
        AND ((e.cost_nano IS NOT NULL AND e.cost_rub_nano IS NULL)
            OR (e.cost_nano IS NULL AND e.at_risk_nano IS NOT NULL AND e.fx_rub_date IS NULL
                AND (e.fx_date IS NULL OR e.fx_eur_date IS NOT NULL))))
)
