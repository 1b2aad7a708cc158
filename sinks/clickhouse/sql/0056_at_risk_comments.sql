-- What is at risk is of calls whose cost is known in part, too.
ALTER TABLE usage
    COMMENT COLUMN IF EXISTS at_risk_nano 'What a call may cost at most beyond cost_nano, nano-USD, counts towards limits, NULL where the cost is known for sure.',
    COMMENT COLUMN IF EXISTS at_risk_usd 'What a call may cost at most beyond cost_usd, in USD, exact.'
