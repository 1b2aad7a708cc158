-- Calls that a subscription pays: what their columns mean.
ALTER TABLE usage
    COMMENT COLUMN IF EXISTS service_tier 'Tier the provider says it served (default, flex, priority, fast), subscription = paid by one.',
    COMMENT COLUMN IF EXISTS est_cost_nano 'Estimate before the call, nano-USD (1e-9 USD), NULL = none. Of a SUBSCRIPTION call its list price, never counted.',
    COMMENT COLUMN IF EXISTS price_status 'PRICED, PARTIAL, OVERRIDE, FREE, SUBSCRIPTION (costs 0), or without a cost UNKNOWN_MODEL, NO_USAGE, INVALID.'
