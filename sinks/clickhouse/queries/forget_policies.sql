-- Takes out the policies and the membership of a user or an address that have ended, earlier versions too.
DELETE FROM watch_policies
WHERE policy_id NOT IN (SELECT policy_id FROM watch_policies FINAL WHERE NOT deleted) AND
    -- include: forget_rule
