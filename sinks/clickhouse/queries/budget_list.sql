-- Every limit in its current period, with what is used of it, in the limit's own unit, each member's among them; of one
-- user those for himself.
SELECT org_id, scope, name, applies, period, timezone, unit, amount, used, at_risk_nano, starts, ends, policy_id
FROM budget_use
WHERE ({org_id:String} = '' OR org_id = {org_id:String})
    AND ({user_id:String} = '' OR (scope = 'user' AND name = {user_id:String}))
ORDER BY used / amount DESC, org_id, scope, name, period, unit
LIMIT {top:UInt32}
