-- How many calls of a sum were refused before they were made and cost nothing, had their usage estimated, or were corrected
-- after they were first priced; which price books and which days' exchange rates are in it (NULL = none).
    countIf(e.status = 'BLOCKED') AS refused,
    countIf(e.usage_source = 'ESTIMATED') AS estimated,
    countIf(e.revision > 0) AS corrected,
    arraySort(groupUniqArrayIf(toString(e.price_book), e.price_book != '')) AS price_books,
    min(e.fx_date) AS fx_from,
    max(greatest(e.fx_date, ifNull(e.fx_eur_date, e.fx_date), ifNull(e.fx_rub_date, e.fx_date))) AS fx_until,
