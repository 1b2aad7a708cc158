-- What a total of minutes says of itself, as one of calls does. NULL in `estimated`: computed before these columns were there,
-- such a minute is read from the ledger.
ALTER TABLE usage_minutes
    ADD COLUMN IF NOT EXISTS estimated Nullable(UInt64),
    ADD COLUMN IF NOT EXISTS corrected Nullable(UInt64),
    ADD COLUMN IF NOT EXISTS subscription_calls UInt64,
    ADD COLUMN IF NOT EXISTS value_nano Int64,
    ADD COLUMN IF NOT EXISTS price_books Array(LowCardinality(String)),
    ADD COLUMN IF NOT EXISTS fx_from Nullable(Date),
    ADD COLUMN IF NOT EXISTS fx_until Nullable(Date)
