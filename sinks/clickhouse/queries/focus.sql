-- FOCUS 1.2 rows of [since, until): for each day, caller, model, rule and kind of token one charge, all 57 columns in the
-- order of the specification. Calls of unknown cost are no charge, nor are those on users' own keys.
WITH
    toDecimal128('0.000000001', 9) AS nano_usd,
    toDecimal128(cost_nano, 0) * nano_usd AS cost,
    CAST(quantity AS Decimal(38, 9)) AS amount,
    if(quantity > 0, CAST(toDecimal256(cost_nano, 30) / toInt256(quantity) / toInt256(1000000000) AS Decimal(38, 18)), NULL) AS unit_price
SELECT
    CAST(NULL AS Nullable(String)) AS AvailabilityZone,
    cost AS BilledCost,
    if(org_id = '', 'default', org_id) AS BillingAccountId,
    BillingAccountId AS BillingAccountName,
    'Organization' AS BillingAccountType,
    'USD' AS BillingCurrency,
    toDateTime64(toStartOfMonth(day) + INTERVAL 1 MONTH, 3, 'UTC') AS BillingPeriodEnd,
    toDateTime64(toStartOfMonth(day), 3, 'UTC') AS BillingPeriodStart,
    CAST(NULL AS Nullable(String)) AS CapacityReservationId,
    CAST(NULL AS Nullable(String)) AS CapacityReservationStatus,
    'Usage' AS ChargeCategory,
    CAST(NULL AS Nullable(String)) AS ChargeClass,
    concat(if(model = '', 'unnamed model', model), ', ', lower(meter)) AS ChargeDescription,
    'Usage-Based' AS ChargeFrequency,
    toDateTime64(day + INTERVAL 1 DAY, 3, 'UTC') AS ChargePeriodEnd,
    toDateTime64(day, 3, 'UTC') AS ChargePeriodStart,
    CAST(NULL AS Nullable(String)) AS CommitmentDiscountCategory,
    CAST(NULL AS Nullable(String)) AS CommitmentDiscountId,
    CAST(NULL AS Nullable(String)) AS CommitmentDiscountName,
    CAST(NULL AS Nullable(Decimal(38, 9))) AS CommitmentDiscountQuantity,
    CAST(NULL AS Nullable(String)) AS CommitmentDiscountStatus,
    CAST(NULL AS Nullable(String)) AS CommitmentDiscountType,
    CAST(NULL AS Nullable(String)) AS CommitmentDiscountUnit,
    amount AS ConsumedQuantity,
    unit AS ConsumedUnit,
    cost AS ContractedCost,
    unit_price AS ContractedUnitPrice,
    cost AS EffectiveCost,
    CAST(NULL AS Nullable(String)) AS InvoiceId,
    if(provider_id = '', 'unknown', provider_id) AS InvoiceIssuerName,
    cost AS ListCost,
    unit_price AS ListUnitPrice,
    'Standard' AS PricingCategory,
    'USD' AS PricingCurrency,
    unit_price AS PricingCurrencyContractedUnitPrice,
    cost AS PricingCurrencyEffectiveCost,
    unit_price AS PricingCurrencyListUnitPrice,
    amount AS PricingQuantity,
    unit AS PricingUnit,
    InvoiceIssuerName AS ProviderName,
    InvoiceIssuerName AS PublisherName,
    nullIf(region, '') AS RegionId,
    nullIf(region, '') AS RegionName,
    nullIf(api_key_id, '') AS ResourceId,
    nullIf(if(label != '', label, api_key_id), '') AS ResourceName,
    if(api_key_id = '', NULL, 'API Key') AS ResourceType,
    'AI and Machine Learning' AS ServiceCategory,
    concat(InvoiceIssuerName, ' models') AS ServiceName,
    'Generative AI' AS ServiceSubcategory,
    concat(InvoiceIssuerName, '/', if(model = '', 'unnamed', model)) AS SkuId,
    meter AS SkuMeter,
    CAST(NULL AS Nullable(String)) AS SkuPriceDetails,
    concat(if(rule_id = '', SkuId, rule_id), '/', replaceAll(lower(meter), ' ', '_')) AS SkuPriceId,
    nullIf(group_id, '') AS SubAccountId,
    nullIf(group_id, '') AS SubAccountName,
    if(group_id = '', NULL, 'Group') AS SubAccountType,
    toJSONString(mapFilter((name, value) -> value != '', map('service', service, 'environment', environment,
        'cost_centre', cost_centre, 'owner', owner))) AS Tags
FROM
(
    SELECT
        day, org_id, group_id, key AS api_key_id, provider_id, model, region, rule_id, service, environment,
        l.label AS label, l.owner AS owner, l.cost_centre AS cost_centre,
        tupleElement(part, 1) AS meter, tupleElement(part, 2) AS unit, tupleElement(part, 3) AS quantity,
        tupleElement(part, 4) AS cost_nano
    FROM
    (
        SELECT
            toDate(e.event_time) AS day,
            toString(e.org_id) AS org_id, toString(e.group_id) AS group_id, toString(e.api_key_id) AS key,
            toString(e.provider_id) AS provider_id, toString(e.model_id) AS model, toString(e.region) AS region,
            toString(e.rule_id) AS rule_id, toString(e.service) AS service, toString(e.environment) AS environment,
            toInt64(sum(ifNull(e.cost_input_nano, 0))) AS input_nano,
            toInt64(sum(ifNull(e.cost_cache_read_nano, 0))) AS read_nano,
            toInt64(sum(ifNull(e.cost_cache_write_nano, 0))) AS write_nano,
            toInt64(sum(ifNull(e.cost_output_nano, 0))) AS output_nano,
            toInt64(sum(e.cost_nano)) - input_nano - read_nano - write_nano - output_nano AS other_nano,
            [
                ('Input Tokens', 'Tokens', toInt64(sum(e.input_tokens - e.cache_read_tokens - e.cache_write_tokens)), input_nano),
                ('Cache Read Tokens', 'Tokens', toInt64(sum(e.cache_read_tokens)), read_nano),
                ('Cache Write Tokens', 'Tokens', toInt64(sum(e.cache_write_tokens)), write_nano),
                ('Output Tokens', 'Tokens', toInt64(sum(e.output_tokens)), output_nano),
                ('Other Units', 'Requests', toInt64(if(other_nano = 0, 0, count())), other_nano)
            ] AS parts
        FROM usage_events AS e FINAL
        WHERE e.cost_nano IS NOT NULL AND e.status != 'BLOCKED' AND e.billing_scope != 'USER' AND
            -- include: asked
        GROUP BY day, org_id, group_id, key, provider_id, model, region, rule_id, service, environment
    ) AS c
    LEFT ANY JOIN
    (
        SELECT org_id AS label_org, api_key_id AS label_key, label, owner, cost_centre FROM key_labels
    ) AS l ON l.label_key = c.key AND l.label_org = c.org_id
    ARRAY JOIN parts AS part
    WHERE tupleElement(part, 3) > 0 OR tupleElement(part, 4) != 0
)
ORDER BY ChargePeriodStart, BillingAccountId, SubAccountId, ResourceId, SkuPriceId, Tags
