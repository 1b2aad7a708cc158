-- Which incident an alert belongs to ('' = none), how often that had opened, and the text that people got ('' = nobody).
ALTER TABLE alert_states
    ADD COLUMN IF NOT EXISTS incident String,
    ADD COLUMN IF NOT EXISTS turn UInt32 DEFAULT 1,
    ADD COLUMN IF NOT EXISTS title String CODEC(ZSTD(1)),
    ADD COLUMN IF NOT EXISTS body String CODEC(ZSTD(1))
