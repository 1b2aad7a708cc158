-- What a statement of [since, until) says: calls by organisation, provider, model, key and payer, refused ones left out.
-- `content` and `mix` are hashes over the rows it stands on, whatever their order: of tuples, for a hash of a NULL is NULL,
-- and no aggregate takes that in.
SELECT
    toString(e.org_id) AS org_id, toString(e.provider_id) AS provider, toString(e.model_id) AS model,
    toString(e.api_key_id) AS api_key_id, toString(e.billing_scope) AS billing_scope,
    toInt64(count()) AS calls,
    toInt64(sum(toInt128(e.input_tokens))) AS input_tokens,
    toInt64(sum(toInt128(e.output_tokens))) AS output_tokens,
    toInt64(sum(toInt128(ifNull(e.cost_nano, 0)))) AS cost_nano,
    toInt64(sum(toInt128(ifNull(e.cost_eur_nano, 0)))) AS cost_eur_nano,
    toInt64(sum(toInt128(ifNull(e.cost_rub_nano, 0)))) AS cost_rub_nano,
    toInt64(countIf(e.cost_nano IS NOT NULL AND e.cost_eur_nano IS NULL)) AS without_eur,
    toInt64(countIf(e.cost_nano IS NOT NULL AND e.cost_rub_nano IS NULL)) AS without_rub,
    toInt64(countIf(e.cost_nano IS NULL AND NOT (e.status = 'ERROR' AND e.price_status = 'NO_USAGE'))) AS unpriced,
    toInt64(sum(toInt128(ifNull(e.at_risk_nano, 0)))) AS at_risk_nano,
    toInt64(countIf(e.usage_source = 'ESTIMATED')) AS estimated,
    toInt64(sumIf(toInt128(ifNull(e.cost_nano, 0)), e.usage_source = 'ESTIMATED')) AS estimated_nano,
    toInt64(countIf(e.revision > 0)) AS corrected,
    arraySort(groupUniqArray(toString(e.price_book))) AS price_books,
    toString(min(e.fx_date)) AS fx_first, toString(max(greatest(e.fx_date, ifNull(e.fx_eur_date, e.fx_date), ifNull(e.fx_rub_date, e.fx_date)))) AS fx_last,
    toString(groupBitXor(sipHash64(tuple(e.event_time, e.org_id, e.event_id, e.revision, e.cost_nano, e.cost_eur_nano, e.cost_rub_nano)))) AS content,
    toString(sum(sipHash64(tuple(e.event_id, e.revision, e.event_time, e.input_tokens, e.output_tokens, e.cost_nano)))) AS mix
FROM usage_events AS e FINAL
WHERE e.event_time >= {since:DateTime64(6, 'UTC')} AND e.event_time < {until:DateTime64(6, 'UTC')}
    AND e.status NOT IN ('VOID', 'BLOCKED') AND ({org_id:String} = '' OR e.org_id = {org_id:String})
GROUP BY org_id, provider, model, api_key_id, billing_scope
ORDER BY org_id, provider, model, api_key_id, billing_scope
