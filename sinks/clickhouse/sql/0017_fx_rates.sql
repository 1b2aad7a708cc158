-- The exchange rates of every price book: usage_events names book and fx_date, this says what the rate was.
CREATE TABLE IF NOT EXISTS fx_rates
(
    price_book   LowCardinality(String),
    day          Date,
    currency     LowCardinality(String),
    per_usd_nano Int64,                                        -- nano-units of the currency for one USD
    source       String,
    inserted_at  DateTime64(3, 'UTC') DEFAULT now64(3, 'UTC')
)
ENGINE = ReplacingMergeTree(inserted_at)
ORDER BY (price_book, currency, day)
