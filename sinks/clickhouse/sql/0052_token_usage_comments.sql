-- What the columns of the view are, with their units. A view that is replaced later needs them again.
ALTER TABLE token_usage
    COMMENT COLUMN IF EXISTS user_id 'End user.',
    COMMENT COLUMN IF EXISTS agent_id 'Agent or bot.',
    COMMENT COLUMN IF EXISTS ai_provider 'Provider id.',
    COMMENT COLUMN IF EXISTS ai_model 'Model as the price book names it.',
    COMMENT COLUMN IF EXISTS prompt_tokens 'All input tokens.',
    COMMENT COLUMN IF EXISTS completion_tokens 'All output tokens.',
    COMMENT COLUMN IF EXISTS total_tokens 'Input and output tokens, or the larger total that was stated.',
    COMMENT COLUMN IF EXISTS cost_usd 'Cost in USD, exact, NULL = not known, never 0.',
    COMMENT COLUMN IF EXISTS cost_rub 'Cost in RUB, exact, NULL = not known, never 0.',
    COMMENT COLUMN IF EXISTS created_at 'When the call was made, UTC.'
