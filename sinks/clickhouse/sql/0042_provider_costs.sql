-- Lines of providers' bills as they were imported, all revisions. Which of them count says provider_cost_days: read with
-- FINAL, joined by (provider, account, source, day, revision), as the view provider_bills does.
-- Amounts are exact decimals as billed; NULL = the line does not say. Tokens by meter, each token once.
CREATE TABLE IF NOT EXISTS provider_costs
(
    provider   LowCardinality(String),
    account    LowCardinality(String),
    source     LowCardinality(String),                        -- openai.costs, anthropic.usage, aws.cur, csv ...
    day        Date,
    revision   UInt64,
    line       UInt32,                                        -- its number within the day
    key_ref    String CODEC(ZSTD(1)),                         -- the provider's name of the key, never the key
    principal  String CODEC(ZSTD(1)),
    project    String CODEC(ZSTD(1)),
    model      LowCardinality(String),
    line_item  String CODEC(ZSTD(1)),
    meter      LowCardinality(String),                        -- input, cache_read, cache_write, output, prompt, requests, all, other
    quantity   Nullable(Decimal(38, 9)) CODEC(ZSTD(1)),
    unit       LowCardinality(String),
    amount     Nullable(Decimal(38, 18)) CODEC(ZSTD(1)),
    currency   LowCardinality(String),
    amount_usd Nullable(Decimal(38, 18)) CODEC(ZSTD(1))       -- by the bill's own rate, else by the rate of the day
)
ENGINE = ReplacingMergeTree
ORDER BY (provider, account, source, day, revision, line)
TTL day + INTERVAL {retention_bills_days} DAY DELETE
