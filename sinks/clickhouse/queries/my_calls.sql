-- One page of one user's calls, the newest first.
SELECT
    c.id AS id, c.user_id AS user_id, c.agent_id AS agent_id, c.ai_provider AS ai_provider, c.ai_model AS ai_model,
    c.prompt_tokens AS prompt_tokens, c.completion_tokens AS completion_tokens, c.total_tokens AS total_tokens,
    c.nano AS nano, ifNull(c.no_rate, false) AS no_rate, c.unpriced AS unpriced, c.at AS created_at
FROM
    -- include: mine
AS c
ORDER BY c.at DESC, c.id
LIMIT {limit:UInt32} OFFSET {offset:UInt64}
