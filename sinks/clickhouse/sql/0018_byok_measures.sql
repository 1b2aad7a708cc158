-- What users' own keys take of calls (blocked ones left out) and tokens: it counts toward no limit of the organisation.
ALTER TABLE usage_windows
    ADD COLUMN IF NOT EXISTS byok_calls Int64 DEFAULT 0 CODEC(T64, ZSTD(1)) AFTER spend_rub_nano,
    ADD COLUMN IF NOT EXISTS byok_tokens Int64 DEFAULT 0 CODEC(T64, ZSTD(1)) AFTER byok_calls
