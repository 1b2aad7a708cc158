-- One user's tokens, cost and requests by model, by agent or by local day, dearest first, days in their order.
SELECT
    if({by:String} = 'model', ai_provider, '') AS provider,
    if({by:String} = 'model', ai_model, '') AS model,
    if({by:String} = 'agent', agent_id, '') AS agent,
    if({by:String} = 'day', toString(toDate(c.at, {zone:String})), '') AS day,
    -- include: mine_sums
FROM
    -- include: mine
AS c
GROUP BY provider, model, agent, day
ORDER BY day, known_nano DESC, provider, model, agent
