-- The rules of every price book that has priced a row: usage_events names book and rule, this says what they said.
CREATE TABLE IF NOT EXISTS price_rules
(
    price_book  LowCardinality(String),
    rule_id     String,
    provider    LowCardinality(String),
    model       String,
    rule        String CODEC(ZSTD(1)),                        -- JSON: rates in pico-USD per unit, validity, source
    inserted_at DateTime64(3, 'UTC') DEFAULT now64(3, 'UTC')
)
ENGINE = ReplacingMergeTree(inserted_at)
ORDER BY (price_book, rule_id)
