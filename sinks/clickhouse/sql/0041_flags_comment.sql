-- What the marks of a call say, with the one of calls that were brought in afterwards.
ALTER TABLE usage
    COMMENT COLUMN IF EXISTS flags 'Times that look wrong: before_2020, old, ahead, of calls brought in afterwards backfill, empty otherwise.'
