-- What rows of format 2 have besides; NULL in those of format 1, whose rates are all of fx_date.
ALTER TABLE usage_events
    ADD COLUMN IF NOT EXISTS total_tokens Nullable(Int64) CODEC(T64, ZSTD(1)) AFTER model_id,
    ADD COLUMN IF NOT EXISTS fx_eur_date Nullable(Date) CODEC(ZSTD(1)) AFTER total_tokens,
    ADD COLUMN IF NOT EXISTS fx_rub_date Nullable(Date) CODEC(ZSTD(1)) AFTER fx_eur_date
